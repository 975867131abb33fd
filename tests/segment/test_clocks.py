"""A reader in another time namespace sees a sampler that lives, and says that their clocks differ."""

from __future__ import annotations

import time

import pytest

from shm_monitor.schema import Level
from shm_monitor.segment import clocks, layout
from shm_monitor.segment.status import state_of, status_of
from shm_monitor.segment.view import View
from tests.support.children import NOT_PERMITTED, run_python
from tests.support.light_sampler import LightSamplers
from tests.support.publishing import Bench

pytestmark = pytest.mark.processes

DAY_SECONDS = 86_400

ELSEWHERE = r"""
import ctypes, os, re, sys
CLONE_NEWTIME = 0x80
if ctypes.CDLL(None).unshare(CLONE_NEWTIME):
    sys.exit(77)
try:
    with open("/proc/self/timens_offsets", "r+") as file:  # from the first namespace, which may not be this one
        here = int(re.match(r"monotonic\s+(-?\d+)", file.read())[1])
        file.seek(0)
        file.write(f"monotonic {here + int(sys.argv[2])} 0")
except OSError:
    sys.exit(77)
child = os.fork()  # the children are in the new namespace, time_namespaces(7)
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
from shm_monitor.worker.attaching import attach
with attach(sys.argv[1], timeout=0.0, on_stale="never") as reader:
    status = reader.status()
    snapshot = reader.snapshot()
    print(status.state, reader.should_prune(), reader.level().name, snapshot.stale)
    print(status.age_seconds < 3600, snapshot.age_seconds < 3600)
    print(status.detail)
    sys.stdout.flush()
os._exit(0)
"""


def seen_elsewhere(name: str, ahead_seconds: int) -> list[str]:
    """Return what a reader says whose monotonic clock is *ahead_seconds* ahead; skip where that cannot be had."""
    done = run_python(ELSEWHERE, name, ahead_seconds)
    if done.returncode == NOT_PERMITTED:
        pytest.skip("a time namespace of one's own is not permitted here")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("by_kernel", [True, False], ids=["the kernel marks death", "by the clock"])
def test_a_pressed_sampler_is_not_taken_for_stale_in_another_time_namespace(name: str, by_kernel: bool) -> None:
    bench = Bench(name, by_kernel=by_kernel)
    try:
        bench.publish(Level.PRUNE)
        bench.store(layout.STALE_AFTER_OFFSET, 3600 * 10**9)  # however busy the machine is
        answer, ages, detail = seen_elsewhere(name, DAY_SECONDS)
    finally:
        bench.close()

    assert answer == "live True PRUNE False"
    assert ages == "True True"
    assert f"{DAY_SECONDS} s ahead of that of the sampler: another time namespace" in detail


def test_a_real_sampler_is_seen_live_from_there(light: LightSamplers, name: str) -> None:
    light.one(name, interval_seconds=0.01)
    answer, ages, detail = seen_elsewhere(name, DAY_SECONDS)

    assert answer.startswith("live ")
    assert ages == "True True"
    assert "another time namespace" in detail


def test_in_the_same_namespace_there_is_nothing_to_say(bench: Bench) -> None:
    view = View(bench.name)

    assert clocks.difference_ns(view) == 0
    assert status_of(view).detail == ""


def test_a_wall_clock_that_was_set_makes_no_dead_sampler_live(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the wall clock alone, set back by an hour, its last turn would be of now."""
    view = View(bench.name)
    real, realtime = time.monotonic_ns, time.time_ns
    monkeypatch.setattr(time, "monotonic_ns", lambda: real() + 3600 * 10**9)
    monkeypatch.setattr(time, "time_ns", realtime)
    monkeypatch.setattr(clocks, "is_in_another_namespace", lambda: False)

    assert clocks.difference_ns(view) > 3599 * 10**9
    assert state_of(view) == "stale"
    assert status_of(view).detail == ""
