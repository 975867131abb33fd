"""What the sampler costs the machine, how soon it answers, and whether it holds its schedule."""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import shm_monitor
from bench import budgets
from bench.measure import Rows, compare, run
from bench.results import Budget, Row
from bench.stage import COUNTERS, NaivePsutil, SamplerProcess, Turns, compile_kernels, new_name, sampler_here
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.sampler.loop import Sampler
from tests.support.cgroups import child_in
from tests.support.load_cgroup import memory_group

STARTS = 3
SETTLE_SECONDS = 2.0
WATCHED_SECONDS = 10.0
HOVERED_MB = 512
ADAPTING = Budget(2.0)
# In a child: ten times a second another number of blocks of 1 MB.
HOVER = """import random, time
def hover():
    while True:
        wanted = min(random.gauss({mean}, {sigma}), {most})
        while len(blocks) < wanted:
            hold(1)
        while len(blocks) > wanted:
            blocks.pop().close()
        time.sleep(0.1)
threading.Thread(target=hover, daemon=True).start()"""


class Use(NamedTuple):
    """What a sampler used while it was watched: CPU seconds, whole seconds, samples."""

    cpu_seconds: float
    seconds: float
    samples: int

    def rows(self, rate: str, budget: Budget | None) -> Iterator[Row]:
        """Yield the rows of a sampler at *rate*."""
        yield Row(f"CPU at {rate}, of one core", 100 * self.cpu_seconds / self.seconds, "percent", budget=budget)
        yield Row(f"CPU of a sample at {rate}", self.cpu_seconds / self.samples, "seconds")


def watch(benchmark: BenchmarkFixture, sampler: SamplerProcess, name: str, seconds: float) -> Use:
    """Return what *sampler* uses in the next *seconds*."""
    with shm_monitor.attach(name) as reader:
        before, first, began = sampler.cpu_seconds(), reader.snapshot().sequence, time.monotonic()
        run(benchmark, lambda: time.sleep(seconds))
        used, lasted = sampler.cpu_seconds() - before, time.monotonic() - began
        return Use(used, lasted, reader.snapshot().sequence - first)


@pytest.mark.benchmark(group="sampler")
def bench_first_sample(benchmark: BenchmarkFixture, rows: Rows, name: str, tmp_path: Path) -> None:
    """How soon after the start of its process can the first sample be read?"""

    def start(cache: Mapping[str, str]) -> float:
        with SamplerProcess(ResourceConfig(name=name), environ=cache) as sampler:
            shm_monitor.attach(name, timeout=0.0).close()
            return sampler.first_sample_seconds

    turns = itertools.count()
    cold: list[float] = []
    run(benchmark, lambda: cold.append(start({"NUMBA_CACHE_DIR": f"{tmp_path}/{next(turns)}"})), rounds=STARTS)
    compile_kernels()  # into the cache that a sampler has by default
    warm = [start({}) for _ in range(STARTS)]
    rows.add(Row("cold numba cache", statistics.median(cold), "seconds", budget=Budget(3.0)))
    rows.add(Row("warm numba cache", statistics.median(warm), "seconds"))


@pytest.mark.budget
@pytest.mark.benchmark(group="sampler")
@pytest.mark.parametrize("kernels", ["interpreted", "compiled"])
def bench_cost_at_one_hertz(benchmark: BenchmarkFixture, rows: Rows, name: str, kernels: str) -> None:
    """What does the sampler take of the machine, with everything that it can measure here?"""
    is_compiled = kernels == "compiled"
    cpu, memory = (
        (budgets.CPU_COMPILED, budgets.SAMPLER_COMPILED)
        if is_compiled
        else (budgets.CPU_INTERPRETED, budgets.SAMPLER_INTERPRETED)
    )
    if is_compiled:
        compile_kernels()  # into the cache
    with SamplerProcess(ResourceConfig(name=name, compile="always" if is_compiled else "never")) as sampler:
        if is_compiled:
            sampler.await_compiled()
        time.sleep(SETTLE_SECONDS)
        for row in watch(benchmark, sampler, name, 2 * WATCHED_SECONDS).rows(f"1 Hz, {kernels}", cpu):
            rows.add(row)
        rows.add(Row(f"private memory, {kernels}", sampler.private_bytes(), "bytes", budget=memory))
        rows.add(Row(f"RSS, {kernels}, with what others share", sampler.memory_bytes("VmRSS"), "bytes"))


@pytest.mark.benchmark(group="sampler")
def bench_cost_at_ten_hertz(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """What does the sampler take of the machine, with everything that it can measure here?"""
    with SamplerProcess(ResourceConfig(name=name, check_interval=0.1, compile="always")) as sampler:
        sampler.await_compiled()
        for row in watch(benchmark, sampler, name, WATCHED_SECONDS).rows("10 Hz, compiled", Budget(2.0)):
            rows.add(row)


@pytest.mark.benchmark(group="sampler")
def bench_cost_of_adapting(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """What do the samples between two turns cost, while the memory of a cgroup of 512 MB is calm or hovers?"""
    with (
        memory_group(HOVERED_MB) as group,
        child_in(group) as child,
        SamplerProcess(ResourceConfig(name=name, scope=group.name)) as sampler,
    ):
        time.sleep(SETTLE_SECONDS)
        calm = watch(benchmark, sampler, name, 2 * WATCHED_SECONDS)
        code = HOVER.format(mean=0.92 * HOVERED_MB, sigma=0.02 * HOVERED_MB, most=0.965 * HOVERED_MB)
        child.do(f"exec({code!r}, globals())")
        time.sleep(SETTLE_SECONDS)
        before, began = sampler.cpu_seconds(), time.monotonic()
        with shm_monitor.attach(name) as reader:
            first = reader.snapshot().sequence
            time.sleep(2 * WATCHED_SECONDS)
            samples = reader.snapshot().sequence - first
        hovering = Use(sampler.cpu_seconds() - before, time.monotonic() - began, samples)
    for use, what in ((calm, "calm at 1 Hz"), (hovering, "hovering at 92 +-2 %")):
        rows.add(Row(f"CPU {what}, of one core", 100 * use.cpu_seconds / use.seconds, "percent", budget=ADAPTING))
        rows.add(Row(f"samples a second, {what}", use.samples / use.seconds, "per_second"))


@pytest.mark.benchmark(group="sampler")
def bench_schedule_at_100_hertz(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """Does the sampler hold its schedule?"""
    with SamplerProcess(ResourceConfig(name=name, check_interval=0.01)) as sampler:
        time.sleep(SETTLE_SECONDS)
        with shm_monitor.attach(name) as reader:
            first = reader.snapshot()
            use = watch(benchmark, sampler, name, WATCHED_SECONDS)
            last = reader.snapshot()
            times = [one.mono_ns for one in reader.view().samples(after=first.sequence)]
    for row in use.rows("100 Hz", None):
        rows.add(row)
    counted = (last.sampler.missed_turns_count or 0) - (first.sampler.missed_turns_count or 0)
    schedule = Kept.of(times, 10_000_000)
    rows.add(Row("samples in 10 s", len(times), "count"))
    rows.add(Row("turns missed, by the times of the samples", schedule.missed, "count"))
    rows.add(Row("turns missed, as the sampler counts them", counted, "count"))
    rows.add(Row("drift over 10 s", schedule.drift_seconds, "seconds", budget=Budget(1e-3)))
    rows.add(Row("a turn is late by, median", schedule.late_seconds, "seconds"))
    rows.add(Row("a turn is late by, 99 of 100", schedule.latest_seconds, "seconds"))


@pytest.mark.benchmark(group="sampler")
def bench_schedule_while_compiling(benchmark: BenchmarkFixture, rows: Rows, name: str, tmp_path: Path) -> None:
    """Does the sampler hold its schedule while it compiles its kernels, with nothing in numba's cache?"""
    config = ResourceConfig(name=name, check_interval=0.02, adaptive=False, compile="always")
    with (
        SamplerProcess(config, environ={"NUMBA_CACHE_DIR": str(tmp_path)}) as sampler,
        shm_monitor.attach(name) as reader,
    ):
        run(benchmark, sampler.await_compiled)
        times = [one.mono_ns for one in reader.view().samples(after=0)]
    late = [(after - before) / 1e9 - config.check_interval for before, after in itertools.pairwise(times)]
    rows.add(Row("compiling on a cold cache", (times[-1] - times[0]) / 1e9, "seconds"))
    rows.add(Row("a turn is late by, while compiling, 99 of 100", statistics.quantiles(late, n=100)[98], "seconds"))
    rows.add(Row("a turn is late by, while compiling, at most", max(late), "seconds", budget=Budget(0.02)))


class Kept(NamedTuple):
    """How well a schedule was kept: turns without a sample, how much it moved, median and 99 % of the delays."""

    missed: int
    drift_seconds: float
    late_seconds: float
    latest_seconds: float

    @classmethod
    def of(cls, times_ns: Sequence[int], interval_ns: int) -> Self:
        """Return what *times_ns* say of a schedule of one sample per *interval_ns* whose start is not known."""
        phases = [(at - times_ns[0] + interval_ns // 2) % interval_ns - interval_ns // 2 for at in times_ns]
        start_ns = times_ns[0] + statistics.median_low(phases) - interval_ns // 10  # no turn is that early
        turns = [(at - start_ns) // interval_ns for at in times_ns]
        late = [at - start_ns - turn * interval_ns for at, turn in zip(times_ns, turns, strict=True)]
        earliest, tenth = min(late), len(late) // 10
        drift = statistics.median(late[-tenth:]) - statistics.median(late[:tenth])
        return cls(
            turns[-1] - turns[0] + 1 - len(turns),
            abs(drift) / 1e9,
            (statistics.median(late) - earliest) / 1e9,
            (statistics.quantiles(late, n=100)[98] - earliest) / 1e9,
        )


@pytest.mark.benchmark(group="sampler")
def bench_one_whole_turn(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """What do the readings, their statistics, the decision and the publishing cost, against naive psutil calls?"""
    compile_kernels()
    with sampler_here(ResourceConfig(name=name, check_interval=0.01), owner_pid=os.getpid()) as sampler:
        for _ in range(100):
            sampler.sample()
        seen = compare(benchmark, sampler.sample, NaivePsutil().read)
    against = f"psutil ({seen.baseline_seconds * 1e6:.0f} us)"
    rows.add(Row("one turn", seen.seconds, "seconds", budget=Budget(600e-6)))
    rows.add(Row("one turn", seen.seconds, "seconds", seen.ratio, against, Budget(1.3, of_ratio=True)))


@pytest.mark.benchmark(group="sampler")
def bench_cost_and_window(benchmark: BenchmarkFixture, rows: Rows) -> None:
    """Does a sample cost more when the observation period is longer?"""
    compile_kernels()
    with contextlib.ExitStack() as stack:
        short, long = (_filled(stack, period_seconds) for period_seconds in (1.0, 60.0))
        seen = compare(benchmark, long, short)
    allowed = Budget(2.0, of_ratio=True)
    rows.add(Row("a turn, period 60 s", seen.seconds, "seconds", seen.ratio, "a period of 1 s", allowed))


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
