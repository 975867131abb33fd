"""What acting on pressure costs while there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from statistics import median

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import shm_monitor as sm
from bench.measure import Rows, compare, run
from bench.results import Budget, Row
from bench.stage import published
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.manager import ResourceManager

TASKS = 500  # submitted in one go: long against a look at a new sample, short against a change of the CPU's frequency
ROUNDS = 100
KNOWN_SECONDS = 3.0  # of tasks that are long enough to be seen in two samples
MAKERS: dict[str, Callable[[], Executor]] = {
    "threads": lambda: ThreadPoolExecutor(2),
    "processes": lambda: ProcessPoolExecutor(2),
}


@pytest.mark.benchmark(group="acting")
def bench_governor_step(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """What does a governor cost a loop while nothing presses?"""
    with published(name), sm.attach(name, watch=["memory"]) as reader:
        governor = sm.Governor(64, reader=reader)
        seen = compare(benchmark, governor.step)
    budget = Budget(20, of_ratio=True)
    rows.add(Row("`governor.step()`", seen.seconds, "seconds", seen.ratio, "an empty function", budget))


@pytest.mark.benchmark(group="acting")
@pytest.mark.parametrize("kind", MAKERS)
def bench_submit(benchmark: BenchmarkFixture, rows: Rows, name: str, kind: str) -> None:
    """What does a `BoundedExecutor` add to the executor behind it while nothing presses?"""
    config = ResourceConfig(name=name, check_interval=0.5)
    with (
        ResourceManager(config),
        sm.attach(name, watch=["memory"]) as reader,
        MAKERS[kind]() as plain,
        sm.BoundedExecutor(MAKERS[kind](), limit=10**9, reader=reader) as bounded,
    ):
        began = time.monotonic()
        while time.monotonic() < began + KNOWN_SECONDS:
            bounded.submit(time.sleep, 0.2).result()
            plain.submit(time.sleep, 0.0).result()
        ours: list[tuple[float, float]] = []
        theirs: list[tuple[float, float]] = []
        run(
            benchmark,
            lambda: ours.append(_submit_all(bounded)),
            rounds=ROUNDS,
            before_round=lambda: theirs.append(_submit_all(plain)),
        )
    for at, what, budget in ((0, "submit()", Budget(1.2, of_ratio=True)), (1, "a whole empty task", None)):
        ratio = median(mine[at] / other[at] for mine, other in zip(ours, theirs, strict=True))
        seconds = median(mine[at] for mine in ours)
        rows.add(Row(f"{what}, {kind}", seconds, "seconds", ratio, "the executor alone", budget))


def _submit_all(pool: Executor) -> tuple[float, float]:
    """Return the seconds of this thread's CPU per submit, and those of the wall clock per task to its end."""
    wall, cpu = time.perf_counter(), time.thread_time()
    futures: list[Future[None]] = [pool.submit(_nothing) for _ in range(TASKS)]
    submitted = time.thread_time() - cpu
    for future in futures:
        future.result()
    return submitted / TASKS, (time.perf_counter() - wall) / TASKS


def _nothing() -> None:
    """Do nothing."""
