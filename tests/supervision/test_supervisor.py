"""A sampler that dies or hangs is replaced; a stop takes less than two seconds, whatever it does."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from shm_monitor.errors import AlreadyRunningError, SamplerError
from shm_monitor.supervision.handshake import Order
from shm_monitor.supervision.keeper import BACKOFF_SECONDS, HEALTHY_SECONDS, STOP_SECONDS, Next
from shm_monitor.supervision.supervisor import Supervisor
from shm_monitor.worker.attaching import attach
from tests.support.fake_collectors import FREEZE_VARIABLE
from tests.support.light_sampler import LightSamplers, end
from tests.support.real_sampler import fast
from tests.support.surroundings import files_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.processes


class Supervised:
    """A supervisor of one name, and the lines it said."""

    def __init__(
        self,
        name: str,
        *,
        collectors: tuple[str, ...] = (),
        backoff_seconds: tuple[float, ...] | None = None,
        **settings: object,
    ) -> None:
        """Prepare it."""
        self.name = name
        self.lines: list[str] = []
        config = fast(name, **settings, collectors=("all", *collectors))
        self.order = Order(config=config, owner_pid=os.getpid())
        self.supervisor = Supervisor(self.order, on_event=self.lines.append, backoff_seconds=backoff_seconds)

    def pid(self) -> int:
        """Return the pid of the sampler that runs."""
        pid = self.supervisor.pid
        assert pid is not None
        return pid


@pytest.fixture
def supervised(name: str) -> Iterator[Callable[..., Supervised]]:
    """Make supervisors; at the end they are stopped, and nothing is left of them."""
    made: list[Supervised] = []

    def make(**options: object) -> Supervised:
        made.append(Supervised(name, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.supervisor.stop()
    assert files_of(name) == []
    assert not any(thread.name == "shm-monitor-supervisor" for thread in threading.enumerate())


def lives(pid: int) -> bool:
    """Say whether *pid* has not ended, or not been waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_start_returns_when_the_first_sample_can_be_read_and_stop_leaves_nothing(
    supervised: Callable[..., Supervised], name: str
) -> None:
    one = supervised()
    descriptors = len(os.listdir("/proc/self/fd"))
    one.supervisor.start()
    with attach(name, timeout=0.0) as reader:
        assert reader.status().pid == one.pid()
        pid = one.pid()
        one.supervisor.stop()
        one.supervisor.stop()
        assert reader.status().state == "stopped"
    assert not lives(pid)
    assert one.supervisor.pid is None
    assert one.lines == [f"sampler {pid} started"]
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_a_killed_sampler_is_replaced_and_readers_go_on(supervised: Callable[..., Supervised], name: str) -> None:
    one = supervised()
    one.supervisor.start()
    with attach(name, on_stale="always") as reader:
        first = one.pid()
        at_ns = end_child(first)
        assert reader.should_prune() is True
        wait_until(lambda: not reader.should_prune())
        print(f"\nrestart of a real sampler: {(time.monotonic_ns() - at_ns) / 1e9:.2f} s from kill to sample")
        wait_until(lambda: one.supervisor.restarts == 1)
        status = reader.status()
        assert (status.state, status.restarts, status.pid) == ("live", 1, one.pid())
    assert one.lines == [
        f"sampler {first} started",
        f"sampler {first} ended by signal 9 (Killed)",
        "starting a new sampler in 1 s",
        f"sampler {one.pid()} started and took over",
    ]


def end_child(pid: int) -> int:
    """Kill *pid*, a child of this process; return the monotonic ns just before."""
    return end(pid)


@pytest.mark.slow
@pytest.mark.parametrize("stale_after", [1.0, None])
def test_a_stopped_sampler_is_killed_and_replaced_once_it_is_stale_and_not_before(
    supervised: Callable[..., Supervised], name: str, stale_after: float | None
) -> None:
    """SIGSTOP: it neither dies nor turns."""
    one = supervised(stale_after=stale_after, check_interval=0.1)
    one.supervisor.start()
    with attach(name, on_stale="always") as reader:
        first = one.pid()
        os.kill(first, signal.SIGSTOP)
        wait_until(reader.should_prune)
        wait_until(lambda: reader.status().state == "live")
        assert not lives(first)
        assert reader.status().pid == one.pid() != first
    told = re.fullmatch(rf"sampler {first} hung.*, its last turn was ([0-9.]+) s ago: killed.*", one.lines[1])
    assert told is not None
    assert float(told[1]) >= (stale_after or 2.0)


@pytest.mark.slow
def test_a_sampler_frozen_by_a_driver_that_keeps_the_interpreter_is_killed_and_replaced(
    supervised: Callable[..., Supervised], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No thread of it can act: only the kernel, or another process, can."""
    monkeypatch.setenv(FREEZE_VARIABLE, str(tmp_path / "frozen"))
    one = supervised(stale_after=1.0, collectors=("tests.support.fake_collectors:freezes",))
    one.supervisor.start()
    with attach(name) as reader:
        wait_until(lambda: one.supervisor.restarts == 1)
        wait_until(lambda: reader.snapshot().sequence > 10)
    assert any("hung" in line for line in one.lines)


@pytest.mark.slow
def test_a_stopped_sampler_does_not_delay_the_stop(supervised: Callable[..., Supervised], name: str) -> None:
    one = supervised(stale_after=60.0)
    one.supervisor.start()
    pid = one.pid()
    os.kill(pid, signal.SIGSTOP)
    one.supervisor.stop()
    assert not lives(pid)
    assert STOP_SECONDS < 2.0, "what a stop waits before it kills"
    assert files_of(name) == []


def test_a_stop_during_the_pause_before_a_restart_is_at_once(supervised: Callable[..., Supervised], name: str) -> None:
    one = supervised()
    one.supervisor.start()
    end_child(one.pid())
    wait_until(lambda: len(one.lines) == 3)
    one.supervisor.stop()
    assert one.lines[-1] == "starting a new sampler in 1 s"
    assert one.supervisor.restarts == 0
    assert files_of(name) == []


def test_a_stop_during_the_start_ends_the_start_at_once(supervised: Callable[..., Supervised]) -> None:
    one = supervised()
    threading.Timer(0.05, one.supervisor.stop).start()
    with pytest.raises(SamplerError, match="stopped before its first sample"):
        one.supervisor.start()


def test_what_nobody_expects_is_a_warning_and_what_was_asked_for_is_none(
    supervised: Callable[..., Supervised], caplog: pytest.LogCaptureFixture
) -> None:
    """Beside a command the log shows warnings alone: a sampler that the kernel killed must be among them."""
    caplog.set_level(logging.INFO, "shm_monitor")
    one = supervised(backoff_seconds=(0.01,))
    one.supervisor.start()
    first = one.pid()
    one.supervisor.reload(one.order)
    wait_until(lambda: one.supervisor.restarts == 1)
    second = one.pid()
    end_child(second)
    wait_until(lambda: one.supervisor.restarts == 2)
    one.supervisor.stop()

    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line for line in warnings if "ended" in line] == [
        f"{one.name}: sampler {second} ended by signal 9 (Killed)"
    ]
    assert one.lines[1] == f"sampler {first} makes room for one with the configuration of now"


def test_a_second_supervisor_is_told_who_is_running(
    light: LightSamplers, supervised: Callable[..., Supervised], name: str
) -> None:
    started = light.one(name)
    one = supervised()
    with pytest.raises(AlreadyRunningError, match=str(started.pid)) as caught:
        one.supervisor.start()
    assert caught.value.holder_pid == started.pid
    end(started.pid, signal.SIGTERM)


def test_a_sampler_that_cannot_start_is_an_error_of_start(supervised: Callable[..., Supervised]) -> None:
    one = supervised(collectors=("tests.support.fake_collectors:missing",))
    with pytest.raises(SamplerError, match="log on stderr"):
        one.supervisor.start()


def test_a_process_that_cannot_be_made_is_an_error_of_start(
    supervised: Callable[..., Supervised], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(SamplerError, match="cannot be started"):
        supervised().supervisor.start()


def test_the_pauses_double_to_thirty_seconds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pauses_of(name, monkeypatch, lives_seconds=[0.1] * 9) == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert BACKOFF_SECONDS[-1] == 30.0


def test_a_minute_of_health_makes_the_next_death_the_first_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lives_seconds = [0.1, 0.1, 0.1, HEALTHY_SECONDS + 1, 0.1, HEALTHY_SECONDS - 1, 0.1]
    assert pauses_of(name, monkeypatch, lives_seconds) == [0.0, 1.0, 2.0, 4.0, 1.0, 2.0, 4.0]


def pauses_of(name: str, monkeypatch: pytest.MonkeyPatch, lives_seconds: list[float]) -> list[float]:
    """Return the pause before each life when the lives last so long, by a clock that only they move."""
    supervisor = Supervised(name).supervisor
    pauses: list[float] = []
    now = [1000.0]

    def live(pause: float) -> Next:
        pauses.append(pause)
        now[0] += pause + lives_seconds[len(pauses) - 1]
        if len(pauses) == len(lives_seconds):
            return Next.NOTHING
        return Next.AFTER_A_PAUSE

    monkeypatch.setattr(supervisor, "_live", live)
    monkeypatch.setattr(supervisor, "_clock", lambda: now[0])
    supervisor._keep()
    return pauses


@pytest.mark.slow
def test_a_sampler_that_dies_again_and_again_leaks_nothing_here(
    supervised: Callable[..., Supervised],
) -> None:
    one = supervised(backoff_seconds=(0.01,))
    one.supervisor.start()
    end_child(one.pid())
    wait_until(lambda: one.supervisor.restarts == 1)
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for restarts in range(2, 6):
        end_child(one.pid())
        wait_until(lambda restarts=restarts: one.supervisor.restarts == restarts)  # type: ignore[misc]
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before
