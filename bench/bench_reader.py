"""What a reader costs beyond the one question: attaching, a whole sample, the reasons, the history."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import shm_monitor
from bench.measure import Budget, Rows, compare
from bench.stage import COUNTERS, sampler_here
from shm_monitor.config import ResourceConfig
from shm_monitor.reader import Reader
from shm_monitor.schema import Level

HISTORY_SAMPLES = 300
INTERVAL_SECONDS = 0.005


@contextmanager
def read(name: str, *, everything: bool = False, samples: int = 25) -> Iterator[Reader]:
    """Have a reader of *samples* real samples: of about 64 metrics, or of everything that can be measured here.

    Memory is over its limit of 1 MB for half a period by then, so that there is something to explain.
    """
    config = ResourceConfig(
        name=name,
        check_interval=INTERVAL_SECONDS,
        observation_period=20 * INTERVAL_SECONDS,
        max_cpu_usage_percent=100.0,
        max_memory_usage_mb=1.0,
        stale_after=3600.0,
    )
    chosen = None if everything else COUNTERS
    owner_pid = os.getpid() if everything else None
    with sampler_here(config, only=chosen, owner_pid=owner_pid) as sampler:
        for _ in range(samples):
            sampler.sample()
            time.sleep(INTERVAL_SECONDS)
        with shm_monitor.attach(name) as reader:
            assert reader.level() >= Level.PRUNE
            yield reader


@pytest.mark.benchmark(group="reader")
@pytest.mark.parametrize("everything", [False, True], ids=["64", "all"])
def bench_snapshot(benchmark: BenchmarkFixture, rows: Rows, name: str, *, everything: bool) -> None:
    """What does one consistent sample of everything cost, as plain data?"""
    with read(name, everything=everything) as reader:
        seen = compare(benchmark, reader.snapshot, lambda: psutil.virtual_memory().percent)
        count = len(reader.view().schema.metrics)
    rows.add(
        f"`snapshot()`, {count} metrics",
        seen.seconds,
        "seconds",
        ratio=seen.ratio,
        against="`psutil.virtual_memory()`",
        budget=None if everything else Budget(10e-6, 2),
    )


def attach_and_close(name: str) -> None:
    shm_monitor.attach(name).close()


def attach_with_watch_and_close(name: str) -> None:
    shm_monitor.attach(name, watch=["memory"]).close()


@pytest.mark.benchmark(group="reader")
@pytest.mark.parametrize("attach", [attach_and_close, attach_with_watch_and_close], ids=["overall", "watch"])
def bench_attach(benchmark: BenchmarkFixture, rows: Rows, name: str, attach: Callable[[str], None]) -> None:
    """What does attaching cost a process that has the package loaded?"""
    with read(name, everything=True):
        seen = compare(benchmark, lambda: attach(name), lambda: psutil.virtual_memory().percent)
    case = "`attach()` and `close()`" if attach is attach_and_close else '`attach(watch=["memory"])` and `close()`'
    rows.add(
        case,
        seen.seconds,
        "seconds",
        ratio=seen.ratio,
        against="`psutil.virtual_memory()`",
        budget=Budget(2e-3, 2),
    )


def level(reader: Reader) -> object:
    return reader.level()


def explain(reader: Reader) -> object:
    return reader.explain()


def headroom(reader: Reader) -> object:
    return reader.headroom()


def shed_fraction(reader: Reader) -> object:
    return reader.shed_fraction()


def status(reader: Reader) -> object:
    return reader.status()


@pytest.mark.benchmark(group="reader")
@pytest.mark.parametrize("ask", [level, explain, headroom, shed_fraction, status], ids=lambda one: one.__name__)
def bench_further_questions(
    benchmark: BenchmarkFixture, rows: Rows, name: str, ask: Callable[[Reader], object]
) -> None:
    """What do the other questions cost, while a limit presses?"""
    with read(name) as reader:
        seen = compare(benchmark, lambda: ask(reader), reader.should_prune)
    rows.add(f"`{ask.__name__}()`", seen.seconds, "seconds", ratio=seen.ratio, against="`should_prune()`, pressed")


@pytest.mark.benchmark(group="reader")
def bench_history(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """What does the whole history cost?"""
    with read(name, samples=HISTORY_SAMPLES) as reader:
        seen = compare(benchmark, reader.history, reader.snapshot)
        width = len(reader.history().columns)
    case = f"`history()`, {HISTORY_SAMPLES} samples of {width} metrics"
    rows.add(case, seen.seconds, "seconds", ratio=seen.ratio, against="`snapshot()`")
