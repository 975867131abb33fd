"""How soon a worker knows that its sampler was killed."""

from __future__ import annotations

import statistics
import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import shm_monitor
from bench.measure import Rows, run
from bench.results import Budget, Row
from bench.stage import SamplerProcess
from shm_monitor.config.resource import ResourceConfig

KILLS = 15
STALE_AFTER_SECONDS = 1.0


def kill_to_answer(name: str, *, force_clock: bool = False) -> float:
    """Return the seconds from SIGKILL of a new sampler to the changed answer of a reader that asks all the time."""
    config = ResourceConfig(name=name, check_interval=0.1, stale_after=STALE_AFTER_SECONDS)
    with (
        SamplerProcess(config, force_clock=force_clock) as sampler,
        shm_monitor.attach(name, on_stale="always") as reader,
    ):
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
    run(benchmark, lambda: seen.append(kill_to_answer(name)), rounds=KILLS)
    rows.add(Row(f"median of {KILLS} kills", statistics.median(seen), "seconds", budget=Budget(5e-3, 3)))
    rows.add(Row(f"worst of {KILLS} kills", max(seen), "seconds"))
    by_clock = kill_to_answer(name, force_clock=True)
    rows.add(Row(f"without the kernel's mark, `stale_after={STALE_AFTER_SECONDS}`", by_clock, "seconds"))
