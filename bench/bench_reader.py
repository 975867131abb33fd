"""What a reader costs beyond the one question: attaching, a whole sample, the reasons, the history."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import shm_monitor
from bench.measure import Rows, compare
from bench.results import Budget, Row
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


PSUTIL = "`psutil.virtual_memory()`"


@pytest.mark.benchmark(group="reader")
@pytest.mark.parametrize("everything", [False, True], ids=["64", "all"])
def bench_snapshot(benchmark: BenchmarkFixture, rows: Rows, name: str, *, everything: bool) -> None:
    """What does one consistent sample of everything cost, as plain data?"""
    with read(name, everything=everything) as reader:
        seen = compare(benchmark, reader.snapshot, psutil.virtual_memory)
        count = len(reader.view().schema.metrics)
    allowed = None if everything else Budget(10e-6, 2)
    rows.add(Row(f"`snapshot()`, {count} metrics", seen.seconds, "seconds", seen.ratio, PSUTIL, allowed))


@pytest.mark.benchmark(group="reader")
@pytest.mark.parametrize("watch", [None, "memory"], ids=["overall", "watch"])
def bench_attach(benchmark: BenchmarkFixture, rows: Rows, name: str, watch: str | None) -> None:
    """What does attaching cost a process that has the package loaded?"""
    with read(name, everything=True):
        seen = compare(benchmark, lambda: shm_monitor.attach(name, watch=watch).close(), psutil.virtual_memory)
    case = "`attach()`, `close()`" if watch is None else f'`attach(watch="{watch}")`, `close()`'
    rows.add(Row(case, seen.seconds, "seconds", seen.ratio, PSUTIL, Budget(2e-3, 2)))


@pytest.mark.benchmark(group="reader")
@pytest.mark.parametrize("question", ["level", "reasons", "explain", "headroom", "shed_fraction", "status"])
def bench_further_questions(benchmark: BenchmarkFixture, rows: Rows, name: str, question: str) -> None:
    """What do the other questions cost, while a limit presses?"""
    with read(name) as reader:
        seen = compare(benchmark, getattr(reader, question), reader.should_prune)
    rows.add(Row(f"`{question}()`", seen.seconds, "seconds", seen.ratio, "`should_prune()`, pressed"))


@pytest.mark.benchmark(group="reader")
def bench_history(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """What does the history cost?"""
    with read(name, samples=HISTORY_SAMPLES) as reader:
        seen = compare(benchmark, reader.history, reader.snapshot)
        width = len(reader.history().columns)
    case = f"`history()`, {HISTORY_SAMPLES} samples, {width} metrics"
    rows.add(Row(case, seen.seconds, "seconds", seen.ratio, "`snapshot()`"))
