"""A sampler that hangs is as good as dead to every worker, also while nobody is there to kill it."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from shm_monitor.errors import StaleError
from shm_monitor.segment.status import LIVE, STALE
from shm_monitor.worker.attaching import attach
from tests.support.children import PYTHON
from tests.support.fake_collectors import FREEZE_VARIABLE
from tests.support.surroundings import child_environment
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shm_monitor.worker.reader import Reader
    from tests.support.light_sampler import LightSamplers

pytestmark = pytest.mark.processes

STALE_AFTER_SECONDS = 1.0
GRACE_SECONDS = 0.2  # what a worker may learn too late

OWNER = """
import ctypes, os, signal, sys, time
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.supervision.handshake import Order
from shm_monitor.supervision.supervisor import Supervisor

name, stale_after, hold_seconds, *collectors = sys.argv[1:]
times = dict(check_interval=0.1, observation_period=1.0, stale_after=float(stale_after))
order = Order(config=ResourceConfig(name=name, collectors=("all", *collectors), **times), owner_pid=os.getpid())
supervisor = Supervisor(order, backoff_seconds=(0.01,))
supervisor.start()
print(supervisor.pid, flush=True)
sys.stdin.readline()
ctypes.PyDLL(None).sleep(int(hold_seconds))
sys.stdin.readline()
supervisor.stop()
"""


class Owner:
    """A process that owns a supervised sampler, and on demand keeps its interpreter lock in a call in C.

    Attributes:
        sampler_pid: of its first sampler.
    """

    def __init__(
        self, name: str, *collectors: str, stale_after: float = STALE_AFTER_SECONDS, hold_seconds: int = 0
    ) -> None:
        self.process = subprocess.Popen(
            [*PYTHON, "-c", OWNER, name, str(stale_after), str(hold_seconds), *collectors],
            env=child_environment(OPENBLAS_NUM_THREADS="1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.sampler_pid = int(self.process.stdout.readline())

    def hold(self) -> None:
        """Let it call C, and not come back for long."""
        assert self.process.stdin is not None
        self.process.stdin.write("hold\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """End it and its sampler."""
        os.kill(self.process.pid, signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def own(name: str) -> Iterator[Callable[..., Owner]]:
    """Start owners of this test's name; they end whatever happens, and so do their samplers."""
    made: list[Owner] = []

    def start(*collectors: str, **settings: float) -> Owner:
        made.append(Owner(name, *collectors, **settings))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_a_stopped_sampler_that_nobody_watches_is_dead_to_its_readers(light: LightSamplers, name: str) -> None:
    """No supervisor, no clock: the kernel ends it, and its flag says so."""
    if not light.by_kernel:
        pytest.skip("this kernel ends no sampler that hangs")
    started = light.one(name, stale_after_seconds=2.0)
    with attach(name, on_stale="always") as reader, attach(name, on_stale="raise") as strict:
        assert reader.should_prune() is False
        os.kill(started.pid, signal.SIGSTOP)
        wait_until(reader.should_prune)
        with pytest.raises(StaleError):
            strict.should_prune()
        assert reader.status().state == STALE
        assert light.one(name).taken_over


def test_where_the_kernel_helps_no_clock_of_another_namespace_makes_a_sampler_stale(
    light: LightSamplers, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that has run ahead for a year calls no pressed sampler stale."""
    if not light.by_kernel:
        pytest.skip("without the kernel's help the clock is all there is")
    light.one(name)
    with attach(name, watch=["cpu"], on_stale="raise") as reader:
        now_ns = time.monotonic_ns()
        monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns + 10**9 * 86400 * 365)
        assert reader.should_prune() is True
        assert reader.status().state == LIVE
        assert reader.snapshot().stale is False


@pytest.mark.slow
def test_a_sampler_that_keeps_its_interpreter_lock_is_dead_while_its_owner_is_stopped(
    own: Callable[..., Owner], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(FREEZE_VARIABLE, str(tmp_path / "frozen"))
    owner = own("tests.support.fake_collectors:freezes")
    with attach(name, on_stale="always") as reader:
        os.kill(owner.process.pid, signal.SIGSTOP)
        wait_until(reader.should_prune)
        assert (tmp_path / "frozen").exists()


@pytest.mark.slow
def test_an_owner_held_in_a_call_in_c_keeps_no_hang_from_readers(own: Callable[..., Owner], name: str) -> None:
    """Its supervising thread cannot run before the call is over."""
    owner = own(hold_seconds=3600)
    with attach(name, on_stale="always") as reader:
        owner.hold()
        time.sleep(0.5)
        os.kill(owner.sampler_pid, signal.SIGSTOP)
        wait_until(reader.should_prune)
        assert owner.process.poll() is None


class Told(NamedTuple):
    """When a reader was told, and how long it did not ask at most, in seconds."""

    seconds: float
    pause_seconds: float


def ask_until_told(reader: Reader, began: float) -> Told:
    """Ask on and on until the answer changes; *began* is when its cause was, on the monotonic clock."""
    last, pause = time.monotonic(), 0.0
    while not reader.should_prune():
        now = time.monotonic()
        pause, last = max(pause, now - last), now
        assert now < began + 60.0, "was never told"
        time.sleep(0.001)
    return Told(time.monotonic() - began, max(pause, time.monotonic() - last))


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "stops_count", [pytest.param(3, marks=pytest.mark.slow), pytest.param(50, marks=pytest.mark.soak)]
)
def test_every_reader_is_told_when_sampler_and_supervisor_are_stopped_together(
    own: Callable[..., Owner], name: str, stops_count: int, record_property: Callable[[str, object], None]
) -> None:
    """As by Ctrl-Z. Late is what neither the stop nor a reader that was kept from asking explains."""
    owner = own()
    delays, late = [], 0
    with attach(name, on_stale="always") as reader, attach(name, on_stale="raise") as strict:
        for _ in range(stops_count):
            assert reader.should_prune() is False
            pid = reader.status().pid or 0
            began = time.monotonic()
            os.kill(owner.process.pid, signal.SIGSTOP)
            os.kill(pid, signal.SIGSTOP)
            told = ask_until_told(reader, began)
            with pytest.raises(StaleError):
                strict.should_prune()
            delays.append(told.seconds)
            late += told.seconds - told.pause_seconds > STALE_AFTER_SECONDS + GRACE_SECONDS
            os.kill(owner.process.pid, signal.SIGCONT)
            wait_until(lambda: reader.status().state == LIVE)
    record_property("median_seconds_from_stop_to_answer", statistics.median(delays))
    print(f"\nstop to answer: median {statistics.median(delays):.2f} s, worst {max(delays):.2f} s of {stops_count}")
    assert late == 0
