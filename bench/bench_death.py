"""How soon a worker knows that its sampler was killed."""

from __future__ import annotations

import statistics
import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import shm_monitor
from bench import budgets
from bench.measure import Rows, run
from bench.results import Budget, Row
from bench.stage import SamplerProcess
from shm_monitor.config.resource import ResourceConfig

KILLS = 15
AGED_KILLS = 9
AGE_SECONDS = 4.0  # its kernels are compiled by then, and the machine has forgotten it
STALE_AFTER_SECONDS = 1.0


def kill_to_answer(name: str, *, age_seconds: float = 0.0, force_clock: bool = False) -> float:
    """Return the seconds from SIGKILL of a sampler to the changed answer of a reader that asks all the time."""
    stale_after = STALE_AFTER_SECONDS if force_clock else 60.0  # else the kernel's timer might be the first
    config = ResourceConfig(name=name, check_interval=0.1, stale_after=stale_after, enabled=False)
    with (
        SamplerProcess(config, force_clock=force_clock) as sampler,
        shm_monitor.attach(name, on_stale="always") as reader,
    ):
        time.sleep(age_seconds)
        ask = reader.should_prune
        assert not ask()
        began = time.perf_counter()
        sampler.kill()
        while not ask():
            pass
        return time.perf_counter() - began


@pytest.mark.budget
@pytest.mark.benchmark(group="death")
def bench_kill_to_answer(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """How long after SIGKILL does `should_prune()` answer for a dead sampler?"""
    seen: list[float] = []
    run(benchmark, lambda: seen.append(kill_to_answer(name)), rounds=KILLS)
    aged = [kill_to_answer(name, age_seconds=AGE_SECONDS) for _ in range(AGED_KILLS)]
    for which, delays, allowed in (
        ("a new sampler", seen, Budget(1e-3)),
        (f"one that ran {AGE_SECONDS:.0f} s", aged, budgets.AGED_DEATH),
    ):
        case = f"{which}: %s of {len(delays)} kills"
        rows.add(Row(case % "median", statistics.median(delays), "seconds", budget=allowed))
        rows.add(Row(case % "best", min(delays), "seconds"))
        rows.add(Row(case % "worst", max(delays), "seconds"))
    by_clock = kill_to_answer(name, force_clock=True)
    rows.add(Row(f"without the kernel's mark, `stale_after={STALE_AFTER_SECONDS}`", by_clock, "seconds"))
