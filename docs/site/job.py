"""A training job in a container of 64 GB, made up: a sampler whose ring holds its last five minutes."""

from __future__ import annotations

import contextlib
import math
import os
import random
import time
from collections.abc import Iterator

from shm_monitor.collectors.sources import source_for
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.sampler.loop import Sampler
from shm_monitor.schema import Metric
from shm_monitor.segment.lock import Lock
from shm_monitor.supervision.handshake import Order
from shm_monitor.testing import FakeReadings
from tests.support.surroundings import remove_files

GB = 2**30
SECONDS = 300


class JobReadings(FakeReadings):
    """A training job."""

    def __init__(self, *, presses: bool) -> None:
        super().__init__()
        self._presses = presses
        self.values = {}
        self.at(0)
        self.metrics = tuple(sorted(map(metric_of, self.values), key=lambda metric: not metric.rolled))
        self.values = {metric.name: self.values[metric.name] for metric in self.metrics}
        self.facts = {"scopes": ["host", "/kubepods/job-7"]}

    def at(self, second: int) -> None:
        """Set the readings of *second*."""
        noise = random.Random(second).gauss
        step = second % 40 / 40
        level = 41 + 4 * step + noise(0, 0.25)
        if self._presses:
            level += 13.5 * min(max((second - 96) / 60, 0), 1) * (second < 190) + 0.32 * max(second - 246, 0)
        cores = [min(100.0, max(0.0, 70 + 25 * math.sin(second / 9 + core) + noise(0, 6))) for core in range(16)]
        self.values |= {
            "cpu.cpu_percent": sum(cores) / 16,
            "cpu.host_cpu_percent": sum(cores) / 16 * 0.6 + 12,
            "cpu.count": 32.0,
            "cpu.effective_count": 16.0,
            "cpu.load_1": 13.4 + math.sin(second / 30),
            **{f"cpu:{core}.core_percent": value for core, value in enumerate(cores)},
            "memory.usage_bytes": level * GB,
            "memory.capacity_bytes": 64.0 * GB,
            "memory.scope": 1.0,
            "memory:host.usage_bytes": (96 + level + 3 * math.sin(second / 50)) * GB,
            "memory:host.capacity_bytes": 251.0 * GB,
            "memory:host.scope": 0.0,
            "memory:0.usage_bytes": level * GB,
            "memory:0.capacity_bytes": 64.0 * GB,
            "memory:0.scope": 1.0,
            "stall.memory_some_percent": max(0.0, (level - 55) * 2 + noise(0, 1)) if level > 54 else 0.0,
            "stall.memory_full_percent": max(0.0, (level - 57) * 1.5) if level > 56 else 0.0,
            "stall.cpu_some_percent": max(0.0, 6 + 4 * math.sin(second / 9) + noise(0, 1)),
            "stall.io_some_percent": max(0.0, 2 + noise(0, 1)),
            "network.usage_bytes_per_second": 190e6,
            "network.receive_bytes_per_second": max(0.0, 170e6 + 40e6 * math.sin(second / 12) + noise(0, 9e6)),
            "network.transmit_bytes_per_second": max(0.0, 24e6 + noise(0, 4e6)),
            "network:eth0.receive_bytes_per_second": max(0.0, 170e6 + noise(0, 9e6)),
            "network:eth0.transmit_bytes_per_second": max(0.0, 24e6 + noise(0, 4e6)),
            "disk.read_bytes_per_second": max(0.0, 410e6 * (step < 0.3) + noise(20e6, 8e6)),
            "disk.write_bytes_per_second": max(0.0, 900e6 * (second % 120 > 112) + noise(3e6, 1e6)),
        }


def metric_of(name: str) -> Metric:
    """Return the metric that is called *name*."""
    place, _, field = name.rpartition(".")
    group, _, instance = place.partition(":")
    unit = next(
        one for one in ("bytes_per_second", "bytes", "percent", "count") if field.endswith(one) or one == "count"
    )
    rolled = field in {"usage_bytes", "cpu_percent", "usage_bytes_per_second"}
    return Metric(group, field, unit, "made up", "docs/site", instance, field in {"scope", "count"}, rolled)


@contextlib.contextmanager
def job(name: str, readings: JobReadings, *, target_utilization: float = 0.9) -> Iterator[None]:
    """Have a sampler whose ring of *readings* ends now; for an hour its readers find it alive."""
    config = ResourceConfig(
        name=name, stale_after=3600.0, max_cpu_usage_percent=97.0, target_utilization=target_utilization
    )
    lock, start_ns = Lock(name), time.monotonic_ns() - SECONDS * 10**9
    offset_ns, now_ns = time.time_ns() - time.monotonic_ns(), [start_ns]
    sampler = Sampler(
        Order(config=config, owner_pid=os.getpid()),
        [source_for(readings, config.check_interval, lambda: now_ns[0])],
        clock=lambda: now_ns[0],
        realtime=lambda: now_ns[0] + offset_ns,
    )
    try:
        for second in range(SECONDS):
            now_ns[0] += 10**9
            readings.at(second)
            sampler.sample()
        yield
    finally:
        sampler.close()
        lock.release()
        remove_files(name)
