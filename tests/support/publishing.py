"""A publisher in the process of the test, and a small schema for it."""

from __future__ import annotations

import time

import numpy as np

from shm_monitor.sampler.kernel_support import KernelSupport
from shm_monitor.sampler.publisher import Publisher
from shm_monitor.schema import Level, Limit, Metric, Schema
from shm_monitor.segment import names
from shm_monitor.segment.lock import Lock


def small_schema(metric_count: int = 3, limit_count: int = 2) -> Schema:
    """Return a schema of *metric_count* metrics, the first rolled, and *limit_count* limits on it."""
    metrics = tuple(
        Metric("memory" if index else "cpu", f"m{index}_bytes", "bytes", "a number", "a test", rolled=index == 0)
        for index in range(metric_count)
    )
    known = ("memory", "cpu", "network", "gpu:0", "gpu-memory:0")
    limits = tuple(
        Limit(limit, metrics[0].name, "bytes", "GPU-0" if limit.startswith("gpu") else "")
        for limit in known[:limit_count]
    )
    return Schema(metrics, limits, ("cpu", "memory"), {}, ("level", "value"))


class Bench:
    """A publisher in this process, with the lock of its name: publishes what a test tells it to."""

    def __init__(
        self,
        name: str,
        schema: Schema | None = None,
        *,
        slot_count: int = 8,
        by_kernel: bool = False,
        period_seconds: float = 0.0,
        dead: bool = False,
    ) -> None:
        """Publish under *name*; *dead*: a reader finds each sample too old as soon as it is there."""
        self.name = name
        self.schema = small_schema() if schema is None else schema
        self.lock = Lock(name)
        self.publisher = Publisher(
            name,
            self.schema,
            slot_count=slot_count,
            interval_ns=10**9,
            # With the switch of a sampler this process would have to publish in time, or be killed.
            stale_after_ns=10**18 if by_kernel else 1 if dead else 3 * 10**9,
            period_ns=int(period_seconds * 1e9),
            support=KernelSupport(marks_death=by_kernel, ends_hang=by_kernel),
        )

    def publish(self, *levels: Level, mono_ns: int | None = None, value: float = 1.0) -> None:
        """Publish a sample whose limits have *levels*; the overall one is the highest."""
        given = [*levels, *[Level.OK] * (len(self.schema.limits) - len(levels))]
        verdicts = np.array([int(level) << 32 for level in given], np.uint64)
        record = self.publisher.record
        record["values"][0] = value
        record["verdict"] = max(given, default=Level.OK) << 32
        self.publisher.publish(
            mono_ns=time.monotonic_ns() if mono_ns is None else mono_ns, realtime_ns=time.time_ns(), verdicts=verdicts
        )

    def store(self, offset: int, word: int) -> None:
        """Write *word* into the segment, as another process can."""
        with open(names.object_path(self.name), "r+b") as file:
            file.seek(offset)
            file.write(word.to_bytes(8, "little"))

    def close(self) -> None:
        self.publisher.close()
        self.lock.release()
