"""Pressure on demand, for tests of programs that use shm-monitor: a real decision over readings that a test sets.

What it has: a sampler in the process of the test, with the real kernels, the real segment and a clock that the test
moves. A worker attaches to it as to any other, in this process or another one. What it has not: measurements, a process
of its own, GPUs that are not asked for. It needs the extra ``sampler``, as a sampler does.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from typing import TYPE_CHECKING

from shm_monitor.collectors.sources import source_for
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.sampler.loop import Sampler
from shm_monitor.schema import Level, Metric
from shm_monitor.segment import names, side_files
from shm_monitor.segment.lock import Lock
from shm_monitor.supervision.handshake import Order
from shm_monitor.worker.attaching import attach

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, Literal, Self

    from shm_monitor.collectors.base import Array
    from shm_monitor.worker.reader import Reader

    LevelName = Literal["ok", "warn", "prune", "critical"]

CAPACITY_BYTES = 1 << 30
SAMPLES_MAX = 200
_TARGET_SHARE = 0.81  # of the capacity: the target is 90 % of the limit, and the limit 90 % of the capacity
_SHARES = {"ok": 0.5, "warn": 0.86, "prune": 0.905, "critical": 0.995}
_SETTINGS: Mapping[str, Any] = {
    "observation_period": 4.0,
    "stale_after": 3600.0,  # however long a test takes between two samples
}


@contextlib.contextmanager
def sampler(
    level: LevelName = "ok", *, shed_bytes: int | None = None, name: str | None = None, gpus: int = 0
) -> Iterator[Reader]:
    """Have a sampler whose memory is at *level*, and yield a reader of it.

    While it runs it is the default: ``attach()``, ``Governor()`` and all others without a ``reader=`` ask it, in this
    process and in those that it starts. ``reader.name`` names it for others.

    Args:
        level: ok, warn, prune or critical.
        shed_bytes: what ``reader.shed_bytes()`` is to return; None for what a capacity of 1 GiB gives.
        name: of the sampler; None for one that nobody else has.
        gpus: how many GPUs it has, at 10 % of all they can.

    Raises:
        ValueError: *level* is none, or *shed_bytes* is given for ``ok``, which asks for nothing.
    """
    with FakeSampler(name, capacity_bytes=_capacity(level, shed_bytes), gpus=gpus) as made:
        made.reach(level)
        with attach(made.name, watch=["memory"]) as reader:
            yield reader


class FakeSampler:
    """A sampler in this process: ``feed`` takes samples, ``reach`` takes them until memory is at a level.

    Its clock runs ahead of the machine's by the samples that it took, so readers find the newest one fresh.

    Attributes:
        name: what workers attach to.
        readings: what the next sample measures, by the names of the metrics. They can be changed.
        now_ns: its monotonic clock.
        sampler: the one that takes the samples.
    """

    def __init__(
        self, name: str | None = None, *, capacity_bytes: float = CAPACITY_BYTES, gpus: int = 0, **settings: Any
    ) -> None:
        """Begin without a sample; *settings* are those of a ``ResourceConfig``."""
        self.name = name or f"testing-{uuid.uuid4().hex[:12]}"
        config = ResourceConfig(name=self.name, **{**_SETTINGS, **settings})
        collector = FakeReadings(capacity_bytes, gpus)
        self.readings = collector.values
        self.now_ns = time.monotonic_ns()
        self._realtime_offset_ns = time.time_ns() - self.now_ns
        self._step_ns = int(config.check_interval * 1e9)
        self._lock = Lock(self.name)
        self.sampler = Sampler(
            Order(config=config, owner_pid=os.getpid()),
            [source_for(collector, config.check_interval, self._clock)],
            clock=self._clock,
            realtime=lambda: self.now_ns + self._realtime_offset_ns,
        )
        self._is_open = True
        names.announce(self.name)

    def feed(self, *usages_bytes: float) -> None:
        """Take a sample for each memory usage, one ``check_interval`` after the other."""
        for usage in usages_bytes:
            self.readings["memory.usage_bytes"] = usage
            self.now_ns += self._step_ns
            self.sampler.sample()

    def reach(self, level: LevelName) -> None:
        """Take samples of one usage until memory is at *level*.

        Raises:
            ValueError: *level* is none.
            AssertionError: it was not reached, as where limits of one's own are in the way.
        """
        usage = _share(level) * self.readings["memory.capacity_bytes"]
        self.feed(usage)
        with attach(self.name, watch=["memory"]) as reader:
            for _ in range(SAMPLES_MAX):
                if reader.level() is Level[level.upper()]:
                    return
                self.feed(usage)
        raise AssertionError(f"{SAMPLES_MAX} samples of {usage:.0f} bytes did not bring memory to {level}")

    def close(self) -> None:
        """Stop as a sampler does: a log of episodes stays for a day. Idempotent."""
        if not self._is_open:
            return
        self._is_open = False
        names.withdraw(self.name)
        self.sampler.close()
        self._lock.release()

    def __enter__(self) -> Self:
        """Return the sampler itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it, and leave no file behind."""
        self.close()
        for file in side_files.files_of(self.name):
            with contextlib.suppress(OSError):
                os.unlink(file.path)

    def _clock(self) -> int:
        return self.now_ns


class FakeReadings:
    """A collector whose readings are numbers that a test sets."""

    name = "memory"
    threaded = False
    interval_seconds: float | None = None

    def __init__(self, capacity_bytes: float = CAPACITY_BYTES, gpus: int = 0) -> None:
        self.values = {
            "memory.usage_bytes": capacity_bytes / 2,
            "memory.capacity_bytes": capacity_bytes,
            "memory.scope": 0.0,
            "cpu.cpu_percent": 5.0,
        }
        for index in range(gpus):
            self.values |= {f"gpu:{index}.utilization_percent": 10.0, f"gpu:{index}.memory_percent": 10.0}
        self.metrics: Sequence[Metric] = tuple(map(_metric, self.values))
        self.facts: Mapping[str, Any] = {"scopes": ["host", "/pod"]}

    def collect(self, out: Array) -> None:
        """Write what the test has set."""
        out[:] = list(self.values.values())

    def close(self) -> None:
        """Nothing is held open."""


def _metric(name: str) -> Metric:
    place, _, field = name.rpartition(".")
    group, _, instance = place.partition(":")
    unit = "bytes" if field.endswith("bytes") else "percent"
    whole, rolled = field == "scope", field not in {"capacity_bytes", "scope"}
    return Metric(group, field, unit, "a number", "a test", instance, whole, rolled)


def _share(level: str) -> float:
    """Return the share of the capacity that is *level*."""
    if level not in _SHARES:
        raise ValueError(f"level={level!r}; allowed is one of {', '.join(_SHARES)}")
    return _SHARES[level]


def _capacity(level: str, shed_bytes: int | None) -> float:
    """Return the capacity of which *level* is *shed_bytes* over the target."""
    above = _share(level) - _TARGET_SHARE
    if shed_bytes is None or above < 0:
        if shed_bytes:
            raise ValueError(f"shed_bytes={shed_bytes} at level ok; allowed is 0, or a level from warn on")
        return CAPACITY_BYTES
    return shed_bytes / above
