"""How soon a worker knows that its sampler was killed."""

from __future__ import annotations

import statistics
import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import shm_monitor
from bench.measure import Budget, Rows
from bench.stage import SamplerProcess
from shm_monitor.config import ResourceConfig

KILLS = 15


def kill_to_answer(name: str, *, force_clock: bool = False, stale_after_seconds: float | None = None) -> float:
    """Return the seconds from SIGKILL of a new sampler to a changed answer of a reader that asks all the time."""
    config = ResourceConfig(name=name, stale_after=stale_after_seconds, on_stale="always")
    with SamplerProcess(config, force_clock=force_clock) as sampler:
        with shm_monitor.attach(name, on_stale="always") as reader:
            ask = reader.should_prune
            assert not ask()
            began = time.perf_counter()
            sampler.kill()
            while not ask():
                pass
            return time.perf_counter() - began


@pytest.mark.benchmark(group="death")
def bench_kill_to_answer(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """How long after SIGKILL does `should_prune()` answer for a dead sampler?"""
    seen: list[float] = []
    benchmark.pedantic(lambda: seen.append(kill_to_answer(name)), rounds=KILLS)
    rows.add(f"SIGKILL to answer, median of {KILLS}", statistics.median(seen), "seconds", budget=Budget(5e-3, 3))
    rows.add(f"SIGKILL to answer, worst of {KILLS}", max(seen), "seconds")
    by_clock = kill_to_answer(name, force_clock=True, stale_after_seconds=1.0)
    rows.add("SIGKILL to answer by the clock alone, `stale_after=1.0`", by_clock, "seconds")
