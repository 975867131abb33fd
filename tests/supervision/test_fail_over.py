"""When the process that owns the sampler is killed, another manager of that name starts the next one."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from shm_monitor.manager import ResourceManager
from shm_monitor.segment import side_files
from shm_monitor.supervision.handshake import Order
from shm_monitor.supervision.heir import Claim, Heir
from shm_monitor.supervision.shared_sampler import SharedSampler
from shm_monitor.worker.attaching import attach
from shm_monitor.worker.reader import Reader
from tests.support.children import output_of
from tests.support.light_sampler import LightSamplers, end
from tests.support.manager_process import Managers
from tests.support.real_sampler import RealSampler, fast
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.processes

WAIT_SECONDS = 60.0


@pytest.fixture(autouse=True)
def _nothing_left(name: str) -> Iterator[None]:
    """Whatever happens, no thread waits on, and no file of the name is left."""
    yield
    assert not any(thread.name.startswith("shm-monitor") for thread in threading.enumerate())
    assert side_files.files_of(name) == []


def owner_of(reader: Reader) -> int:
    """Return the pid of the parent of the sampler that lives."""
    found: list[int] = []

    def is_there() -> bool:
        status = reader.status()
        if status.state != "live":
            return False
        try:
            with open(f"/proc/{status.pid}/stat", "rb") as file:
                found.append(int(file.read().rpartition(b")")[2].split()[1]))
        except FileNotFoundError:
            return False
        return True

    wait_until(is_there, WAIT_SECONDS)
    return found[-1]


def next_owner(reader: Reader, managers: Managers) -> int:
    """Return the pid of the owner once it is one of *managers* that lives."""
    wait_until(lambda: owner_of(reader) in managers.pids, WAIT_SECONDS)
    return owner_of(reader)


def test_the_owner_is_killed_and_another_manager_starts_the_next_sampler(name: str) -> None:
    """And who has attached finds it as ever; the last one that lives stops it."""
    with Managers(name, 3) as managers, attach(name, on_stale="always") as reader:
        for _ in range(2):
            managers.kill(next_owner(reader, managers))
        assert next_owner(reader, managers) in managers.pids
        wait_until(lambda: not reader.should_prune(), WAIT_SECONDS)
        gaps = managers.gaps()
    print(f"\nlongest time without a sampler: {gaps[0]:.2f} s")
    assert len(gaps) == 1


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_thirty_managers_whose_owner_is_killed_twenty_times_are_never_long_without_a_sampler(name: str) -> None:
    with Managers(name, 30) as managers, attach(name, on_stale="always") as reader:
        for _ in range(20):
            managers.kill(next_owner(reader, managers))
            wait_until(lambda: not reader.should_prune(), WAIT_SECONDS)
            time.sleep(0.5)
        next_owner(reader, managers)
        gaps = sorted(managers.gaps())
    print(f"\nlongest time without a sampler of each of {len(gaps)}: {gaps[0]:.2f} to {gaps[-1]:.2f} s")
    assert len(gaps) == 10
    assert gaps[-1] < 10 * 2.0  # 2 s is promised, and 1.9 s the worst measured; a machine may be busier


def test_owner_and_sampler_are_killed_at_once(name: str) -> None:
    """As by the OOM killer with a whole cgroup: the segment stays, and is taken over with its history."""
    with Managers(name, 2) as managers, attach(name) as reader:
        owner, sampler = next_owner(reader, managers), reader.status().pid or 0
        os.kill(owner, signal.SIGSTOP)  # so that it starts no other
        os.kill(sampler, signal.SIGKILL)
        managers.kill(owner)
        assert next_owner(reader, managers) != owner
        assert reader.status().restarts == 1
        managers.gaps()


def test_a_sampler_that_dies_is_left_to_its_owner(name: str) -> None:
    with ResourceManager(fast(name)) as owner, Managers(name, 1) as managers:
        end(owner.status().pid or 0)
        wait_until(lambda: owner.status().restarts == 1, WAIT_SECONDS)
        assert owner.owns_sampler
        managers.gaps()


def test_a_manager_that_is_closed_while_others_live_hands_over(name: str) -> None:
    first = ResourceManager(fast(name))
    with ResourceManager(fast(name)) as second:
        assert (first.owns_sampler, second.owns_sampler) == (True, False)
        first.close()
        wait_until(lambda: second.owns_sampler, WAIT_SECONDS)
        wait_until(lambda: second.status().state == "live", WAIT_SECONDS)


def test_closing_during_the_take_over_leaves_nothing(name: str) -> None:
    for delay_seconds in (0.0, 0.2):
        first, second = ResourceManager(fast(name)), ResourceManager(fast(name))
        first.close()
        wait_until(lambda: second._sampler._supervisor is not None, WAIT_SECONDS)  # noqa: B023
        time.sleep(delay_seconds)
        second.close()
        assert not second.owns_sampler


def test_a_forked_child_of_an_heir_inherits_nothing(name: str) -> None:
    code = """
import os, sys, time
from shm_monitor.manager import ResourceManager
from tests.support.real_sampler import fast
first, second = ResourceManager(fast(sys.argv[1])), ResourceManager(fast(sys.argv[1]))
while len(second._sampler._heir._pidfds) < 2:
    time.sleep(0.01)
before = len(os.listdir("/proc/self/fd"))
child = os.fork()
if child == 0:
    # the heir's pipe and its two pidfds, the supervisor's two pipes
    closed = before - len(os.listdir("/proc/self/fd"))
    second.close()
    os._exit(0 if closed == 6 and not second.owns_sampler else 1)
status = os.waitpid(child, 0)[1]
first.close()
deadline = time.monotonic() + 60
while not second.owns_sampler and time.monotonic() < deadline:
    time.sleep(0.01)
print(status, second.owns_sampler)
second.close()
"""
    assert output_of(code, name) == "0 True"


def test_an_heir_sleeps_while_owner_and_sampler_live(light: LightSamplers, name: str) -> None:
    """Not one look at the segment: its thread does not wake up."""
    started = light.one(name)
    heir = Heir(name, lambda: False)
    heir.start()
    try:
        wait_until(lambda: len(heir._pidfds) == 2)
        wait_until(lambda: sleeps_on(heir))
    finally:
        heir.stop()
        end(started.pid, signal.SIGTERM)


def sleeps_on(heir: Heir) -> bool:
    """Watch the thread of *heir* for a second: a hold-up may wake it once, but who looks now and then always is."""
    before = switches(heir)
    time.sleep(1.0)
    return switches(heir) == before


def switches(heir: Heir) -> str:
    """Return the line of /proc that counts how often the thread of *heir* went to sleep."""
    with open(f"/proc/self/task/{heir._thread.native_id}/status") as file:
        return next(line for line in file if line.startswith("voluntary"))


def test_one_claim_at_a_time_and_none_outlives_its_process(name: str) -> None:
    first, second = Claim(name), Claim(name)
    assert first.take()
    assert not second.take()
    child = os.fork()
    if child == 0:
        time.sleep(30)  # has the descriptor
        os._exit(0)
    try:
        first.release()
        assert second.take()
        second.release()
    finally:
        end_child(child)


def end_child(pid: int) -> None:
    """Kill *pid* and wait for it."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_an_owner_that_comes_too_late_becomes_an_heir(name: str) -> None:
    """Stopped, or in the pause before a restart, while somebody else has started a sampler."""
    shared = SharedSampler(Order(config=fast(name), owner_pid=os.getpid()))
    assert shared.start()
    with attach(name) as reader:
        end(reader.status().pid or 0)
        with RealSampler(fast(name)) as other:
            assert not other.report().error
            wait_until(lambda: not shared.owns, WAIT_SECONDS)
            assert shared._heir is not None
            other.process.terminate()
            other.end()
            wait_until(lambda: shared.owns, WAIT_SECONDS)
    shared.stop()
