"""What present workers are told of several things that they hold."""

from __future__ import annotations

import math
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shm_monitor.sampler.attendance import Attendance, Told
from shm_monitor.sampler.holdings import Over, Pressure
from shm_monitor.schema import Level, Reason
from shm_monitor.segment import names, presence
from shm_monitor.segment.flags import level_of, reasons_of, request_of, verdict_word
from shm_monitor.segment.layout import WORKER_COUNT
from tests.support.surroundings import child_environment
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not presence.HAS_PRESENCE, reason="record locks and /proc are looked at as Linux has them"),
]

MB = 2**20
CALM = Pressure(0, Over(-50.0 * MB))
GPU_CALM = CALM._replace(held_bytes={})
HOLD = """
import sys
from shm_monitor.segment import names, presence
slot = presence.take_slot(sys.argv[1], 1.0)
for bit in sys.argv[3:]:
    presence.want(sys.argv[1], slot, int(bit))
held = [bytearray(b"1") * 2**20 for _ in range(int(sys.argv[2]))]
print(slot, flush=True)
sys.stdin.readline()
"""
MANY = """
import os, sys, time
from shm_monitor.segment import names, presence
for _ in range(255):
    if os.fork() == 0:
        break
slot = presence.take_slot(sys.argv[1], 1.0)
held = bytearray(b"1") * 2**21
os.write(1, b"%d\\n" % slot)
time.sleep(600)
"""


class Held(NamedTuple):
    """A holding that the test plays."""

    limit: int
    want: int

    def pressure(self, record: NDArray[np.void], words: NDArray[np.uint64]) -> Pressure:
        raise NotImplementedError  # the test says it


MEMORY, GPU = Held(0, presence.want_of()), Held(3, presence.want_of(0))


class Stage:
    """An attendance whose clock the test moves, and processes that hold a slot each."""

    def __init__(self, name: str) -> None:
        self.name, self.now = name, 0.0
        self.processes: list[subprocess.Popen[str]] = []
        self.attendance = self.another()

    def another(self) -> Attendance:
        return Attendance(self.name, (MEMORY, GPU), lambda: self.now)

    def worker(self, *bits: int) -> int:
        """Start one that holds 64 MB and wants to be asked for *bits*; return its pid. Slots count from 0."""
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, self.name, "64", *map(str, bits)],
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        assert process.stdout is not None
        assert int(process.stdout.readline()) == len(self.processes) - 1
        return process.pid

    def turn(self, memory: Pressure = CALM, gpu: Pressure = GPU_CALM, seconds: float = 0.1) -> Told:
        self.now += seconds
        return self.attendance.turn((memory, gpu), others=0)

    def close(self) -> None:
        for one in self.processes:
            one.communicate("\n")


@pytest.fixture
def stage(name: str) -> Iterator[Stage]:
    made = Stage(name)
    yield made
    made.close()


def over(size_mb: float, held: Mapping[int, int] | None = None, level: Level = Level.PRUNE) -> Pressure:
    return Pressure(verdict_word(level, Reason.LEVEL, 0.5), Over(size_mb * MB, 100.0 * MB), held)


def asked(told: Told) -> list[int]:
    return [request_of(told.requests[slot])[1] // MB for slot in sorted(told.requests)]


def levels(told: Told) -> list[Level]:
    return [level_of(told.verdicts[slot]) for slot in sorted(told.verdicts)]


def limits(stage: Stage) -> list[int]:
    register = presence.Register(stage.name)
    return [register.record(slot).limit for slot in range(len(stage.processes))]


def test_for_memory_of_a_gpu_the_one_is_asked_that_holds_most_of_it_whatever_it_holds_of_the_host(stage: Stage) -> None:
    small, large, _ = stage.worker(), stage.worker(), stage.worker()
    told = stage.turn(gpu=over(100, {small: 200 * MB, large: 900 * MB}))

    assert asked(told) == [0, 100, 0]
    assert levels(told) == [Level.WARN, Level.PRUNE, Level.WARN]
    assert limits(stage) == [0, GPU.limit, 0]
    assert presence.Register(stage.name).record(1).held_bytes == 900 * MB
    assert level_of(told.everybody) is Level.PRUNE


def test_critical_memory_of_a_gpu_asks_all_that_hold_some_and_nobody_else(stage: Stage) -> None:
    first, second, _ = stage.worker(), stage.worker(), stage.worker()
    told = stage.turn(gpu=over(90, {first: 300 * MB, second: 600 * MB}, Level.CRITICAL))

    assert asked(told) == [30, 60, 0]
    assert levels(told) == [Level.CRITICAL, Level.CRITICAL, Level.WARN]


def test_where_the_driver_does_not_say_who_holds_a_gpu_all_are_told(stage: Stage) -> None:
    stage.worker(), stage.worker()
    told = stage.turn(gpu=over(100, {}))

    assert asked(told) == [0, 0]
    assert levels(told) == [Level.PRUNE, Level.PRUNE]


def test_who_does_not_watch_a_gpu_is_not_asked_for_it(stage: Stage) -> None:
    onlooker, watcher = stage.worker(MEMORY.want), stage.worker(MEMORY.want, GPU.want)
    told = stage.turn(gpu=over(100, {onlooker: 900 * MB, watcher: 400 * MB}))

    assert asked(told) == [0, 100]
    assert levels(told) == [Level.OK, Level.PRUNE]


def test_who_watches_a_gpu_alone_is_not_asked_for_memory(stage: Stage) -> None:
    stage.worker(GPU.want), stage.worker()
    told = stage.turn(memory=over(10, level=Level.CRITICAL))

    assert levels(told) == [Level.OK, Level.CRITICAL]
    assert asked(told)[0] == 0


def test_memory_of_the_host_comes_first_and_takes_the_place_of_a_request_for_a_gpu(stage: Stage) -> None:
    pid = stage.worker()
    on_gpu = over(100, {pid: 900 * MB})
    assert asked(stage.turn(gpu=on_gpu)) == [100]
    told = stage.turn(memory=over(80), gpu=on_gpu)

    assert 30 <= asked(told)[0] <= 50, "half of what it holds of memory"
    assert limits(stage) == [MEMORY.limit]
    assert request_of(told.requests[0])[0] == 2, "another request has another number, of whatever it is"


def test_an_answer_about_a_gpu_counts_when_the_driver_shows_less(stage: Stage) -> None:
    pid = stage.worker()
    told = stage.turn(gpu=over(100, {pid: 900 * MB}))
    presence.say(stage.name, 0, answer=(request_of(told.requests[0])[0], 100 * MB))
    assert asked(stage.turn(gpu=over(100, {pid: 900 * MB}))) == [100]

    assert asked(stage.turn(gpu=over(5, {pid: 799 * MB}))) == [0]
    assert presence.Register(stage.name).record(0).in_vain_count == 0


def test_another_sampler_goes_on_with_the_numbers_of_rounds(stage: Stage) -> None:
    stage.worker(), stage.worker()
    first = request_of(stage.turn(memory=over(20)).requests[0])[0]
    stage.attendance = stage.another()

    assert max(request_of(word)[0] for word in stage.turn(memory=over(20)).requests.values()) == first + 1


def test_who_is_asked_in_vain_is_named_until_it_reacts(stage: Stage) -> None:
    stage.worker()
    register = presence.Register(stage.name)
    for _ in range(30):
        stage.turn(memory=over(20), seconds=1.0)
    assert register.record(0).in_vain_count == 2, "and it is left alone for a minute"

    for _ in range(60):
        stage.turn(memory=over(20), seconds=1.0)
    assert register.record(0).in_vain_count == 3


def test_the_reasons_of_all_that_a_worker_is_asked_about_are_told(stage: Stage) -> None:
    pid = stage.worker()
    forecast = over(20)._replace(verdict=verdict_word(Level.PRUNE, Reason.FORECAST))
    told = stage.turn(memory=forecast, gpu=over(100, {pid + 1: 900 * MB}))

    assert reasons_of(told.verdicts[0]) == Reason.FORECAST | Reason.LEVEL


def test_memory_is_looked_at_soon_while_somebody_is_asked_for_it(stage: Stage) -> None:
    stage.worker()
    assert stage.attendance.wait_seconds == float("inf")
    stage.turn(memory=over(20))

    assert stage.attendance.wait_seconds == 0.1


def write_records(name: str, *records: bytes) -> None:
    with open(f"{names.side_directory()}/{name}{presence.SUFFIX}", "r+b") as file:
        file.seek(WORKER_COUNT)
        file.write(b"".join(records))


@pytest.mark.parametrize("weight", [math.inf, math.nan, -1.0, 5e-324, 1.7e308])
def test_a_weight_of_nonsense_stops_nobody(stage: Stage, weight: float) -> None:
    stage.worker(), stage.worker()
    write_records(stage.name, struct.pack("<Qd", 0, weight))
    told = stage.turn(memory=over(20, level=Level.CRITICAL))

    assert levels(told) == [Level.CRITICAL, Level.CRITICAL]
    assert sum(asked(told)) >= 19


@given(records=st.lists(st.binary(min_size=64, max_size=64), min_size=2, max_size=2))
def test_garbage_in_the_records_stops_nobody(stage: Stage, records: list[bytes]) -> None:
    while len(stage.processes) < 2:
        stage.worker()
    write_records(stage.name, *records)
    told = stage.turn(memory=over(20, level=Level.CRITICAL), gpu=over(10, {1: 50 * MB}))

    assert set(told.requests) == {0, 1}


@pytest.mark.slow
def test_of_256_workers_as_many_are_asked_as_it_takes(stage: Stage) -> None:
    command = [sys.executable, "-c", MANY, stage.name]
    with subprocess.Popen(
        command, env=child_environment(), stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            assert sorted(int(process.stdout.readline()) for _ in range(256)) == list(range(256))
            told = stage.turn(memory=over(80))
        finally:
            os.killpg(process.pid, signal.SIGKILL)

    requests = [request_of(word)[1] for word in told.requests.values()]
    assert len(told.verdicts) == 256
    assert 80 * MB <= sum(requests) <= 80 * MB + 256
    assert 75 <= sum(map(bool, requests)) <= 85, "each can give half of its two megabytes"
    wait_until(lambda: not stage.turn().requests)
