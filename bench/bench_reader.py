"""What a reader costs beyond the one question: attaching, a whole sample, the reasons, the history."""

from __future__ import annotations

import itertools
import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import shm_monitor
from bench import budgets
from bench.measure import Rows, compare
from bench.results import Budget, Row
from bench.stage import COUNTERS, sampler_here
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.schema import Level
from shm_monitor.segment.layout import HEAD_OFFSET, WORD_BYTES
from shm_monitor.segment.names import object_path
from shm_monitor.worker.reader import Reader

HISTORY_SAMPLES = 100
INTERVAL_SECONDS = 0.05  # below it, ticks of 10 ms leave readings unknown now and then


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


@contextmanager
def moving(name: str) -> Iterator[Callable[[], None]]:
    """Give a call that makes another of the newest samples the newest, as a sampler does; takes 0.1 us."""
    with open(object_path(name), "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        place = HEAD_OFFSET // WORD_BYTES
        with memoryview(memory).cast("Q") as words:
            heads = itertools.cycle(range(words[place] - 7, words[place] + 1))
            yield lambda: words.__setitem__(place, next(heads))


PSUTIL = "`psutil.virtual_memory()`"


@pytest.mark.budget
@pytest.mark.benchmark(group="reader")
@pytest.mark.parametrize("everything", [False, True], ids=["64", "all"])
@pytest.mark.parametrize("is_new", [False, True], ids=["again", "new"])
def bench_snapshot(benchmark: BenchmarkFixture, rows: Rows, name: str, *, everything: bool, is_new: bool) -> None:
    """What does one consistent sample of everything cost, as plain data?"""
    with read(name, everything=everything) as reader, moving(name) as move:
        snapshot = reader.snapshot
        seen = compare(benchmark, (lambda: (move(), snapshot())) if is_new else snapshot, psutil.virtual_memory)
        count = len(reader.view().schema.metrics)
    case = f"`snapshot()`, {count} metrics, {'a new sample each time' if is_new else 'the same sample again'}"
    rows.add(Row(case, seen.seconds, "seconds", seen.ratio, PSUTIL, None if everything else budgets.SNAPSHOT))


@pytest.mark.benchmark(group="reader")
@pytest.mark.parametrize("watch", [None, "memory"], ids=["overall", "watch"])
def bench_attach(benchmark: BenchmarkFixture, rows: Rows, name: str, watch: str | None) -> None:
    """What does attaching cost a process that has the package loaded?"""
    with read(name, everything=True):
        seen = compare(benchmark, lambda: shm_monitor.attach(name, watch=watch).close(), psutil.virtual_memory)
    case = "`attach()`, `close()`" if watch is None else f'`attach(watch="{watch}")`, `close()`'
    rows.add(Row(case, seen.seconds, "seconds", seen.ratio, PSUTIL, Budget(2e-3)))


@pytest.mark.budget
@pytest.mark.benchmark(group="reader")
@pytest.mark.parametrize("is_new", [False, True], ids=["again", "new"])
@pytest.mark.parametrize("question", ["explain", "headroom", "outlook", "status"])
def bench_further_questions(benchmark: BenchmarkFixture, rows: Rows, name: str, question: str, *, is_new: bool) -> None:
    """What do the other questions cost, while a limit presses?"""
    with read(name) as reader, moving(name) as move:
        ask = getattr(reader, question)
        seen = compare(benchmark, (lambda: (move(), ask())) if is_new else ask, psutil.virtual_memory)
    case = f"`{question}()`, {'a new sample each time' if is_new else 'the same sample again'}"
    allowed = budgets.EXPLAIN if question == "explain" else None
    rows.add(Row(case, seen.seconds, "seconds", seen.ratio, PSUTIL, allowed))


@pytest.mark.benchmark(group="reader")
def bench_history(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """What does the history cost?"""
    with read(name, samples=HISTORY_SAMPLES) as reader:
        seen = compare(benchmark, reader.history, reader.snapshot)
        width = len(reader.history().columns)
    case = f"`history()`, {HISTORY_SAMPLES} samples, {width} metrics"
    rows.add(Row(case, seen.seconds, "seconds", seen.ratio, "`snapshot()`"))
