"""What the sampler costs the machine, how soon it answers, and whether it holds its schedule."""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import shm_monitor
from bench.measure import Budget, Rows, compare
from bench.stage import COUNTERS, SamplerProcess, new_name, sampler_here
from shm_monitor.config import ResourceConfig
from shm_monitor.sampling import Sampler

STARTS = 3
SETTLE_SECONDS = 2.0  # after which numba has compiled what was not in its cache
WATCHED_SECONDS = {1.0: 20.0, 0.1: 10.0, 0.01: 10.0}
SHARES = {1.0: Budget(0.3, 4), 0.1: Budget(2.0, 4), 0.01: None}


@pytest.mark.benchmark(group="sampler")
def bench_first_sample(benchmark: BenchmarkFixture, rows: Rows, name: str, tmp_path: Path) -> None:
    """How soon after its start can the first sample be read?"""
    cold: list[float] = []
    turns = itertools.count()

    def start_on_a_cold_cache() -> None:
        folder = tmp_path / f"numba-{next(turns)}"
        with SamplerProcess(ResourceConfig(name=name), environ={"NUMBA_CACHE_DIR": str(folder)}) as sampler:
            shm_monitor.attach(name, timeout=0.0).snapshot()
            cold.append(sampler.first_sample_seconds)

    benchmark.pedantic(start_on_a_cold_cache, rounds=STARTS)
    warm: list[float] = []
    for _ in range(STARTS):
        with SamplerProcess(ResourceConfig(name=name)) as sampler:
            warm.append(sampler.first_sample_seconds)
    rows.add("first sample, cold numba cache", statistics.median(cold), "seconds", budget=Budget(3.0, 2))
    rows.add("first sample, warm numba cache", statistics.median(warm), "seconds")


@pytest.mark.benchmark(group="sampler")
@pytest.mark.parametrize("interval_seconds", WATCHED_SECONDS, ids=lambda interval: f"{1 / interval:.0f}Hz")
def bench_share_of_a_core(benchmark: BenchmarkFixture, rows: Rows, name: str, *, interval_seconds: float) -> None:
    """How much of one core does the sampler take, with everything that it can measure here?"""
    config = ResourceConfig(name=name, check_interval=interval_seconds)
    with SamplerProcess(config) as sampler:
        time.sleep(SETTLE_SECONDS)
        with shm_monitor.attach(name) as reader:
            before, first = sampler.cpu_seconds(), reader.snapshot().sequence
            began = time.monotonic()
            benchmark.pedantic(time.sleep, (WATCHED_SECONDS[interval_seconds],))
            used, lasted = sampler.cpu_seconds() - before, time.monotonic() - began
            taken = reader.snapshot().sequence - first
        peak_bytes, rss_bytes = sampler.memory_bytes("VmHWM"), sampler.memory_bytes("VmRSS")
    rate = f"{1 / interval_seconds:.0f} Hz"
    rows.add(
        f"CPU of the sampler at {rate}, of one core", 100 * used / lasted, "percent", budget=SHARES[interval_seconds]
    )
    rows.add(f"CPU per sample at {rate}", used / taken, "seconds")
    if interval_seconds == 1.0:
        rows.add("RSS of the sampler", rss_bytes, "bytes", budget=Budget(200e6, 4))
        rows.add("peak RSS of the sampler", peak_bytes, "bytes", budget=Budget(200e6, 4))


@pytest.mark.benchmark(group="sampler")
def bench_schedule(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """Does the sampler hold its schedule at 100 Hz?"""
    interval_ns = 10_000_000
    with SamplerProcess(ResourceConfig(name=name, check_interval=interval_ns / 1e9)) as sampler:
        time.sleep(SETTLE_SECONDS)
        with shm_monitor.attach(name) as reader:
            first = reader.snapshot()
            benchmark.pedantic(time.sleep, (WATCHED_SECONDS[0.01],))
            last = reader.snapshot()
            times = [one.mono_ns - interval_ns for one in reader.view().samples(after=first.sequence)]
        assert sampler.pid
    counted = (last.sampler.missed_turns_count or 0) - (first.sampler.missed_turns_count or 0)
    elapsed = [at - times[0] for at in times]
    late = [at - interval_ns * round(at / interval_ns) for at in elapsed]  # after the turn of the grid of the first
    late = [one - min(late) for one in late]
    missed = round(elapsed[-1] / interval_ns) - (len(times) - 1)
    tenth = len(late) // 10
    drift = statistics.median(late[-tenth:]) - statistics.median(late[:tenth])
    gaps = [after - before for before, after in itertools.pairwise(times)]
    rows.add("samples taken at 100 Hz", len(times), "count")
    rows.add("turns missed, by the clock", missed, "count")
    rows.add("turns missed, as the sampler counts them", counted, "count")
    rows.add("drift of the turns over 10 s", abs(drift) / 1e9, "seconds", budget=Budget(1e-3, 2))
    rows.add("lateness of a turn, median", statistics.median(late) / 1e9, "seconds")
    rows.add("lateness of a turn, 99 %", statistics.quantiles(late, n=100)[98] / 1e9, "seconds")
    rows.add("shortest gap between two samples", min(gaps) / 1e9, "seconds")


@pytest.mark.benchmark(group="sampler")
def bench_one_whole_sample(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """What does one whole sample cost, against the same readings made naively with psutil?"""
    with sampler_here(ResourceConfig(name=name), owner_pid=os.getpid()) as sampler:
        for _ in range(100):  # a cache of its own for each file that is read again
            sampler.sample()
        seen = compare(benchmark, sampler.sample, NaivePsutil().read)
    against = f"the psutil calls, {seen.baseline_seconds * 1e6:.0f} us"
    rows.add("one whole sample", seen.seconds, "seconds", ratio=seen.ratio, against=against, budget=Budget(600e-6, 4))
    rows.add(
        "one whole sample against psutil",
        seen.seconds,
        "seconds",
        ratio=seen.ratio,
        against=against,
        budget=Budget(1.3, 4, of_ratio=True),
    )


class NaivePsutil:
    """What a worker would write to learn the same, without scopes, stalls, per-process readings or a decision."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def read(self) -> None:
        """Ask psutil for each group once."""
        psutil.cpu_times_percent()
        psutil.cpu_percent(percpu=True)
        psutil.getloadavg()
        psutil.virtual_memory()
        psutil.swap_memory()
        psutil.disk_usage("/dev/shm" if os.path.isdir("/dev/shm") else "/")
        psutil.disk_io_counters(perdisk=True)
        psutil.net_io_counters(pernic=True)
        with self._process.oneshot():
            self._process.cpu_times()
            self._process.memory_info()


class Turns:
    """A clock that moves by one interval when told to, so that 60 s of history take no minute to fill."""

    def __init__(self, interval_ns: int) -> None:
        self._interval_ns = interval_ns
        self._now_ns = time.monotonic_ns()

    def __call__(self) -> int:
        return self._now_ns

    def before(self, sample: Callable[[], None]) -> Callable[[], None]:
        """Return *sample*, at the next turn each time."""

        def at_the_next_turn() -> None:
            self._now_ns += self._interval_ns
            sample()

        return at_the_next_turn


@pytest.mark.benchmark(group="sampler")
def bench_cost_and_window(benchmark: BenchmarkFixture, rows: Rows) -> None:
    """Does a sample cost more when the observation period is longer?"""
    with contextlib.ExitStack() as stack:
        short, long = (_filled(stack, period_seconds) for period_seconds in (1.0, 60.0))
        seen = compare(benchmark, long, short)
    rows.add(
        "a sample at 100 Hz, period 60 s",
        seen.seconds,
        "seconds",
        ratio=seen.ratio,
        against="a period of 1 s",
        budget=Budget(2.0, 2, of_ratio=True),
    )


def _filled(stack: contextlib.ExitStack, period_seconds: float) -> Callable[[], None]:
    """Return the sample() of a sampler at 100 Hz whose period is full of samples."""
    name = stack.enter_context(new_name())
    clock = Turns(10_000_000)
    config = ResourceConfig(
        name=name, check_interval=0.01, observation_period=period_seconds, history_seconds=period_seconds + 1
    )
    sampler: Sampler = stack.enter_context(sampler_here(config, only=COUNTERS, clock=clock))
    sample = clock.before(sampler.sample)
    for _ in range(int(period_seconds * 100) + 1):
        sample()
    return sample
