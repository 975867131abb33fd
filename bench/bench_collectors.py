"""What does one sample cost, against the same readings taken from psutil the obvious way?

Size: all collectors that the sampler reads in line (CPU, memory, stall, network, disk), on this host, in its own
cgroups. Not contended: one process. Requirement: at most 600 us, and at most 1.3 times psutil's sum (which has no
cgroups, no stall and no events).

Run: pytest bench/bench_collectors.py -o python_files="bench_*.py" -o python_functions="bench_*"
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from shm_monitor import collectors
from shm_monitor.collectors.files import Roots
from shm_monitor.collectors.workers import WorkersCollector

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

    from shm_monitor.collectors.base import Collector


def _inline() -> dict[str, Collector]:
    return {each.name: each for each in collectors.discover() if not each.threaded}


def _ours() -> Callable[[], None]:
    """Return one whole sample of all in-line collectors."""
    pairs = [(each.collect, np.empty(len(each.metrics))) for each in _inline().values()]

    def sample() -> None:
        for collect, out in pairs:
            collect(out)

    return sample


def _psutil() -> Callable[[], None]:
    """Return the same readings, as far as psutil has them, as a user would take them."""

    def sample() -> None:
        psutil.cpu_times()
        psutil.cpu_times(percpu=True)
        psutil.cpu_count()
        psutil.Process().cpu_affinity()
        psutil.getloadavg()
        psutil.virtual_memory()
        psutil.swap_memory()
        psutil.disk_usage("/dev/shm")
        psutil.net_io_counters(pernic=True)
        psutil.disk_io_counters(perdisk=True)

    return sample


@pytest.mark.benchmark(group="one whole sample")
@pytest.mark.parametrize("take", [_ours, _psutil], ids=["shm-monitor", "psutil"])
def bench_one_whole_sample(benchmark: BenchmarkFixture, take: Callable[[], Callable[[], None]]) -> None:
    """What does one sample of everything but GPUs and worker processes cost?"""
    sample = take()
    sample()
    benchmark(sample)


@pytest.mark.benchmark(group="by collector")
@pytest.mark.parametrize("name", ["cpu", "memory", "stall", "network", "disk"])
def bench_one_collector(benchmark: BenchmarkFixture, name: str) -> None:
    """Which part of a sample costs how much?"""
    collector = _inline()[name]
    out = np.empty(len(collector.metrics))
    benchmark(collector.collect, out)


@pytest.mark.benchmark(group="processes")
@pytest.mark.parametrize("who", ["shm-monitor", "psutil"])
def bench_look_at_the_worker_processes(benchmark: BenchmarkFixture, who: str) -> None:
    """What does a look at the process tree cost? (Every 2 s, in a thread of its own.)"""
    collector = WorkersCollector(os.getpid(), Roots())
    out = np.empty(len(collector.metrics))

    def naive() -> None:
        owner = psutil.Process()
        for process in [owner, *owner.children(recursive=True)]:
            process.memory_full_info()
            process.cpu_times()

    benchmark(naive if who == "psutil" else lambda: collector.collect(out))
