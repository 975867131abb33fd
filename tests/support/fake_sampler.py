"""A sampler in this process over readings that a test sets: real kernels, real segment, a clock that the test moves."""

from __future__ import annotations

import gc
import os
import time
from typing import TYPE_CHECKING, Any

from shm_monitor.collectors.sources import source_for
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.sampler.loop import Sampler
from shm_monitor.schema import Metric
from shm_monitor.segment.lock import Lock
from shm_monitor.supervision.handshake import Order
from tests.support.surroundings import remove_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shm_monitor.collectors.base import Array


class FakeReadings:
    """A collector whose readings are the attributes that a test sets; memory in units of one byte, capacity 100."""

    name = "memory"
    threaded = False
    interval_seconds: float | None = None

    def __init__(self, *, gpus: int = 0) -> None:
        self.values: dict[str, float] = {
            "memory.usage_bytes": 50.0,
            "memory.capacity_bytes": 100.0,
            "memory.scope": 0.0,
            "cpu.cpu_percent": 5.0,
        }
        for index in range(gpus):
            self.values[f"gpu:{index}.utilization_percent"] = 10.0
            self.values[f"gpu:{index}.memory_percent"] = 10.0
        self.metrics: Sequence[Metric] = tuple(map(_metric, self.values))
        self.facts: Mapping[str, Any] = {"scopes": ["host", "/pod"]}

    def collect(self, out: Array) -> None:
        out[:] = list(self.values.values())

    def close(self) -> None:
        """Nothing is held open."""


def _metric(name: str) -> Metric:
    place, _, field = name.rpartition(".")
    group, _, instance = place.partition(":")
    unit = "bytes" if field.endswith("bytes") else "percent"
    return Metric(
        group, field, unit, "a number", "a test", instance, field == "scope", field not in {"capacity_bytes", "scope"}
    )


class FakeSampler:
    """A whole sampler without its process: ``feed`` takes samples, one second apart by its own clock."""

    is_loaded = False

    def __init__(self, name: str, *, gpus: int = 0, **settings: Any) -> None:
        self._load(f"{name}-first")
        self.readings = FakeReadings(gpus=gpus)
        self.now_ns = time.monotonic_ns()
        self._realtime_offset_ns = time.time_ns() - self.now_ns
        config = ResourceConfig(name=name, **settings)
        self._lock = Lock(name)
        self.sampler = Sampler(
            Order(config=config, owner_pid=os.getpid()),
            [source_for(self.readings, config.check_interval, self.clock)],
            clock=self.clock,
            realtime=lambda: self.now_ns + self._realtime_offset_ns,
        )
        self._step_ns = int(config.check_interval * 1e9)

    @classmethod
    def _load(cls, name: str) -> None:
        """Load the kernels: on a busy machine the first sample takes longer than a sampler may be silent."""
        if not cls.is_loaded:
            cls.is_loaded = True
            first = cls(name)
            first.feed(50.0)
            gc.collect()  # what compiling leaves in circles may hold a view of the segment
            first.close()
            remove_files(name)

    def clock(self) -> int:
        return self.now_ns

    def feed(self, *usages: float) -> None:
        """Take one sample per memory usage, each an interval after the one before.

        The clock runs ahead of the machine's, so to readers the newest sample is fresh.
        """
        for usage in usages:
            self.readings.values["memory.usage_bytes"] = usage
            self.now_ns += self._step_ns
            self.sampler.sample()

    def close(self) -> None:
        self.sampler.close()
        self._lock.release()
