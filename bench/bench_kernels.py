"""What a sample costs in the kernels: rolling for any period, deciding for many limits, replay of a day."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numba import njit

from shm_monitor.decision.rules import MEBIBYTE
from shm_monitor.kernels import should_prune_at
from shm_monitor.traces.binary import Table, Trace
from shm_monitor.traces.replay import replay
from tests.support.engine import MEMORY, Engine, Settings, metric

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

ROLLED = 16


def rolling_of(period_seconds: float, hz: int) -> Callable[[], None]:
    """Return a call that rolls one more sample of ROLLED metrics, with the window already full."""
    metrics = [metric("gpu", "memory_percent", instance=str(gpu), rolled=True) for gpu in range(ROLLED)]
    engine = Engine(Settings(observation_period=period_seconds), metrics, hz=hz)
    noise = np.random.default_rng(0).normal(60, 1, (4096, ROLLED))
    numbers, record, ring, rolling = itertools.count(1), engine.record, engine.ring, engine.rolling
    interval_ns, slots = 10**9 // hz, len(engine.ring)

    def sample() -> None:
        number = next(numbers)
        record["number"], record["mono_ns"] = number, number * interval_ns
        record["values"] = noise[number % 4096]
        rolling.advance(record)
        ring[number % slots] = record[0]

    for _ in range(int(period_seconds * hz) + 1):
        sample()
    return sample


@pytest.mark.benchmark(group="roll one sample at 100 Hz, 16 metrics")
@pytest.mark.parametrize("period_seconds", [1, 60], ids=["period 1 s", "period 60 s"])
def bench_roll_a_sample(benchmark: BenchmarkFixture, period_seconds: int) -> None:
    """Does the cost of a sample grow with the period? The ratio of the means counts: refills are part of it."""
    sample = rolling_of(period_seconds, 100)
    benchmark.pedantic(sample, rounds=30, iterations=2000)  # type: ignore[no-untyped-call]


@pytest.mark.benchmark(group="decide one sample")
@pytest.mark.parametrize("limits", [1, 8, 64], ids=["1 limit", "8 limits", "64 limits"])
def bench_decide_a_sample(benchmark: BenchmarkFixture, limits: int) -> None:
    """What does the whole decision cost, with all four reasons?"""
    gpus = [metric("gpu", "memory_percent", instance=str(gpu), rolled=True) for gpu in range(limits - 1)]
    engine = Engine(Settings(max_gpu_memory_percent=92.0), [MEMORY[0], *gpus, *MEMORY[1:]], hz=10)
    for gpu in range(limits - 1):
        engine.set(f"gpu:{gpu}.memory_percent", 60.0 + gpu % 40)
    engine.feed(np.linspace(60, 89, 200))
    assert len(engine.rules) == limits

    benchmark(engine.decider.decide, engine.record)


@pytest.mark.benchmark(group="replay a day at 1 Hz, 86,400 samples")
@pytest.mark.parametrize("gpus", [0, 8], ids=["1 limit", "9 limits"])
def bench_replay_a_day(benchmark: BenchmarkFixture, gpus: int) -> None:
    """How long does it take to try other settings on yesterday? The report is part of it, reading the file is not."""
    metrics = (
        MEMORY[0],
        *(metric("gpu", "memory_percent", instance=str(gpu), rolled=True) for gpu in range(gpus)),
        *MEMORY[1:],
    )
    count = 86_400
    seconds = np.arange(count)
    values = np.full((count, len(metrics)), 60.0)
    values[:, 0] = (70 + 25 * np.sin(seconds / 2000) + np.random.default_rng(0).normal(0, 1, count)) * MEBIBYTE
    values[:, -3] = 100 * MEBIBYTE
    times = (seconds + 1) * 10**9
    stamps = times.astype(np.uint64)
    day = Trace(Table(metrics, 10**9, {}, "bench"), times, stamps, np.zeros(count, np.uint64), values)
    settings = Settings(max_gpu_memory_percent=92.0)
    replay(day, settings)  # compiled before the clock runs

    assert benchmark(replay, day, settings).samples_count == count


@pytest.mark.benchmark(group="should_prune_at in a compiled loop, 1000 asks")
def bench_ask_in_a_compiled_loop(benchmark: BenchmarkFixture) -> None:
    """What does a question cost inside @njit code? Divide by 1000."""

    @njit
    def ask(address: int, times: int) -> int:
        pressed = 0
        for _ in range(times):
            pressed += should_prune_at(address)
        return pressed

    flag = np.zeros(1, np.uint64)
    assert benchmark(ask, flag.ctypes.data + 3, 1000) == 0
