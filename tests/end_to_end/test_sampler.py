"""The sampler process itself: its schedule, a restart with other limits, collectors that fail, a read-only install."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import shm_monitor
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.schema import Level
from shm_monitor.segment.flags import level_of
from shm_monitor.supervision.handshake import Order
from shm_monitor.supervision.supervisor import Supervisor
from tests.support.children import NOBODY
from tests.support.host_trees import is_root
from tests.support.load_cgroup import sampler, snapshots
from tests.support.load_collectors import FILE_VARIABLE
from tests.support.real_sampler import RealSampler, fast
from tests.support.surroundings import UNMEASURED, child_environment, remove_files
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shm_monitor.snapshot.structs import LimitState, Snapshot
    from shm_monitor.worker.reader import Reader

pytestmark = pytest.mark.processes

TURN_NS = 10_000_000  # at 100 Hz


@contextlib.contextmanager
def supervised(name: str, *, collectors: tuple[str, ...] = (), **settings: object) -> Iterator[Supervisor]:
    """Run a sampler process with further *collectors*; a supervisor keeps it alive."""
    config = ResourceConfig(name=name, collectors=("all", *collectors), **settings)  # type: ignore[arg-type]
    supervisor = Supervisor(Order(config=config, owner_pid=os.getpid()))
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()


@pytest.fixture
def _busy_core() -> Iterator[None]:
    """Keep a core busy: on a machine that does nothing, nothing is over a limit of its CPU."""
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"], env={**os.environ, **UNMEASURED})
    yield
    spinning.kill()
    spinning.wait()


def limit(snapshot: Snapshot, name: str) -> LimitState:
    (found,) = [one for one in snapshot.limits if one.limit == name]
    return found


def innermost(snapshot: Snapshot) -> LimitState:
    """Return the limit of the level of memory that counts for what is configured: our own, else the host."""
    levels = {one.limit: one for one in snapshot.limits if one.limit.startswith("memory:")}
    return levels.get("memory:0") or levels["memory:host"]


def missed_turns(snapshot: Snapshot) -> int:
    count = snapshot.sampler.missed_turns_count
    assert count is not None
    return count


@pytest.mark.slow
@pytest.mark.usefixtures("_busy_core")
def test_other_limits_after_a_restart_are_taken_over_in_place(name: str) -> None:
    """A reader that was there before sees them, with the history, and presses at once: it waits for nothing."""
    period = 10.0  # longer than a busy machine takes to start a sampler
    with RealSampler(fast(name, check_interval=0.1, observation_period=period, history_seconds=60.0)) as first:
        first.report()
        reader = shm_monitor.attach(name)
        watching = shm_monitor.attach(name, watch=["cpu"])
        wait_until(lambda: reader.snapshot().sequence > 0.5 * period / 0.1 + 2)
        before, identity = reader.snapshot(), reader.view().identity
        first.process.kill()  # with nobody who would tidy up or start another one
        first.process.wait()
    usage_mb = (before.memory.usage_bytes or 0) / 2**20
    died = reader.view().sample().number
    with supervised(
        name,
        check_interval=0.1,
        observation_period=period,
        history_seconds=60.0,
        max_memory_usage_mb=usage_mb / 2,
        max_cpu_usage_percent=0.001,
    ):
        wait_until(lambda: reader.snapshot().sequence > died)
        after, explanation = reader.snapshot(), reader.explain()
        history = reader.history(["memory.usage_bytes"]).sequences
        wait_until(watching.should_prune)
        later = reader.snapshot()
        cpu, waited = watching.explain().reasons[0], later.sequence - died

        assert reader.view().identity == identity
        assert history[: died + 1] == list(range(1, died + 2)), "from the first sample on, without a hole"
        assert after.epoch != before.epoch
        assert innermost(before).limit_value == pytest.approx(0.9 * (before.memory.capacity_bytes or 0))
        assert innermost(after).limit_value == pytest.approx(usage_mb / 2 * 2**20)
        assert ["cpu" in [one.limit for one in found.limits] for found in (before, later)] == [False, True]
        reasons = {one.reason: one for one in explanation.reasons if one.limit == innermost(after).limit}
        memory = reasons["level"]  # beside it the kernel may have killed somewhere on this machine
        assert memory.limit_value == pytest.approx(usage_mb / 2 * 2**20)
        first_after = next(reader.view().samples(after=died))
        assert first_after.number == died + 1
        assert level_of(first_after.verdict) >= Level.PRUNE, "it waits for nothing"
        assert (cpu.limit, cpu.limit_value) == ("cpu", 0.001)
        assert waited < 0.25 * period / 0.1, "nor does a limit that was switched off: it only needs a first rate"


def test_a_collector_that_fails_leaves_its_limit_unknown_and_the_others_decide(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pressed when it fails: held for a period, then neither 0 nor over; it counts again when it works again."""
    file = tmp_path / "reading"
    file.write_text("95")
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    with supervised(
        name,
        check_interval=0.1,
        observation_period=1.0,
        max_gpu_memory_percent=90.0,
        collectors=("tests.support.load_collectors:FromFile",),
    ):
        reader = shm_monitor.attach(name)
        wait_until(reader.should_prune)
        file.write_text("no number")
        wait_until(lambda: limit(reader.snapshot(), "gpu-memory:9").value is None)
        # What is told of collectors, and the flags, follow the sample by microseconds, or by more on a busy machine.
        wait_until(lambda: reader.snapshot().sampler.collectors["from-file"].errors_count >= 1)
        failed = reader.snapshot()
        wait_until(lambda: limit(reader.snapshot(), "gpu-memory:9").reasons == ("unknown",))
        wait_until(lambda: not reader.should_prune())
        unknown = reader.snapshot()
        file.write_text("95")
        wait_until(reader.should_prune)
        again = reader.snapshot()

    assert (failed.unavailable["gpu:9.memory_percent"], failed.level) == ("error", "prune")
    assert (limit(unknown, "gpu-memory:9").level, limit(unknown, "gpu-memory:9").value) == ("ok", None)
    assert innermost(unknown).value is not None
    assert innermost(unknown).reasons == ()
    assert {one.errors_count for key, one in again.sampler.collectors.items() if key != "from-file"} == {0}
    assert limit(again, "gpu-memory:9").value == 95.0


class Kept(NamedTuple):
    """How a stretch of samples kept the schedule: their times, and how many turns the sampler says it missed."""

    times_ns: list[int]
    missed_turns_count: int

    @classmethod
    def of(cls, reader: Reader, first: Snapshot, last: Snapshot) -> Kept:
        """Look at the samples from *first* to *last*."""
        samples = [one for one in reader.view().samples(after=first.sequence - 1) if one.number <= last.sequence]
        assert [one.number for one in samples] == list(range(first.sequence, last.sequence + 1))
        return cls([one.mono_ns for one in samples], missed_turns(last) - missed_turns(first))

    def check(self) -> None:
        """One sample a turn at most, those without one are counted, and the n-th is due at start + n intervals."""
        turns = turns_of(self.times_ns, TURN_NS)
        assert all(late > early for early, late in itertools.pairwise(turns)), "none is caught up"
        counted = len(turns) - 1 + self.missed_turns_count
        assert abs(turns[-1] - turns[0] - counted) <= 1, "what is missing is counted"
        passed_ns = counted * TURN_NS
        assert abs(self.times_ns[-1] - self.times_ns[0] - passed_ns) < 2 * TURN_NS, "no drift"
        assert min(late - early for early, late in itertools.pairwise(self.times_ns)) > 0.4 * TURN_NS


@pytest.mark.alone
@pytest.mark.slow
def test_a_sampler_at_100_hz_holds_its_schedule() -> None:
    """The n-th sample is due at start + n/100 s; a turn that was missed is counted, never caught up."""
    with sampler(check_interval=TURN_NS / 1e9, observation_period=1.0) as manager:
        reader = manager.reader
        first = settled(reader)
        time.sleep(5.0)
        kept = Kept.of(reader, first, reader.snapshot())

    kept.check()
    assert kept.missed_turns_count < len(kept.times_ns) / 4


def test_a_sampler_that_was_stopped_for_a_while_catches_nothing_up() -> None:
    with sampler(check_interval=TURN_NS / 1e9, observation_period=1.0) as manager:
        reader = manager.reader
        first, pid = settled(reader), reader.status().pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: missed_turns(reader.snapshot()) > missed_turns(first) + 40)
        next(after for after in snapshots(reader, 30) if after.sequence > first.sequence + 20)
        kept = Kept.of(reader, first, reader.snapshot())

    kept.check()


def settled(reader: Reader) -> Snapshot:
    """Return a sample after the first few: the first of all comes before the schedule begins."""
    return list(snapshots(reader, 10))[-1]


def turns_of(times_ns: list[int], interval_ns: int) -> list[int]:
    """Return the turn that each sample was taken in: the nearest, by the phase that most of them have."""
    angles = [2 * math.pi * ((one - times_ns[0]) % interval_ns) / interval_ns for one in times_ns]
    phase = math.atan2(sum(map(math.sin, angles)), sum(map(math.cos, angles))) / (2 * math.pi)
    return [round((one - times_ns[0]) / interval_ns - phase) for one in times_ns]


READ_ONLY = """
import os, sys, time
import shm_monitor as sm
from pathlib import Path
with sm.ResourceManager(sm.ResourceConfig(name=sys.argv[1], check_interval=0.1, observation_period=1.0)) as manager:
    first = manager.reader.snapshot().sequence
    while manager.reader.snapshot().sequence < first + 5:
        time.sleep(0.05)
    package = Path(sm.__file__).parent
    may_write = [str(one) for one in (package, package / "kernels", Path.home()) if os.access(one, os.W_OK)]
    print(os.getuid(), may_write, manager.status().state, manager.should_prune(), manager.reader.explain().level)
"""


def test_a_read_only_install_without_a_home_is_enough(name: str) -> None:
    """As under DynamicUser= or in a container that runs as nobody: numba has nowhere to keep what it compiled."""
    if not is_root() or shutil.which("setpriv") is None:
        pytest.skip("becoming nobody needs root and setpriv (util-linux)")
    # Nobody may read everything, so that the interpreter and the checkout may lie in somebody's home.
    nobody = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    reading = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    environment = child_environment(HOME="/nonexistent", PYTHONDONTWRITEBYTECODE="1", **UNMEASURED)
    environment.pop("NUMBA_CACHE_DIR", None)
    command = ["setpriv", *nobody, *reading, sys.executable, "-P", "-c", READ_ONLY, name]
    try:
        done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    finally:
        remove_files(name)

    assert (done.returncode, done.stdout) == (0, f"{NOBODY} [] live False ok\n"), done.stderr
    assert "Traceback" not in done.stderr
