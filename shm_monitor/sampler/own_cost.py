"""What the sampler itself costs: a monitor that hides its own use cannot be trusted with the rest."""

from __future__ import annotations

import os
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

from shm_monitor.schema import Metric, Unknown, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shm_monitor.collectors.base import Array
    from shm_monitor.collectors.sources import Source

_RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024  # getrusage(2): ru_maxrss is kilobytes but for macOS


class OwnCost:
    """CPU, memory, duration of a sample, missed turns, errors and duration of each collector. Cost: 10 us.

    The loop stores ``sample_duration_seconds`` and ``missed_turns_count`` here, so they are those of the turns before.
    """

    name = "sampler"
    threaded = False
    interval_seconds: float | None = None

    def __init__(self, sources: Sequence[Source], clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Count what this process uses, and the errors of *sources*."""
        self.sample_duration_seconds = unknown(Unknown.NOT_YET_SAMPLED)
        self.missed_turns_count = 0
        self.facts: Mapping[str, Any] = {}
        self._sources = sources
        self._clock = clock
        self._before: tuple[int, float] | None = None
        self.metrics: Sequence[Metric] = (
            Metric("sampler", "cpu_percent", "percent", "CPU of the sampler, of one core", "times(2)"),
            Metric("sampler", "cpu_seconds", "seconds", "CPU that the sampler has used since it started", "times(2)"),
            Metric("sampler", "rss_bytes", "bytes", "resident memory of the sampler", "/proc/self/statm", integer=True),
            Metric(
                "sampler",
                "sample_duration_seconds",
                "seconds",
                "from the first reading to the flags, of the turn before",
                "CLOCK_MONOTONIC",
            ),
            Metric("sampler", "missed_turns_count", "count", "samples skipped for being late", "", integer=True),
            Metric("sampler", "interval_seconds", "seconds", "since the sample before; the loop writes it", ""),
            *(metric for source in sources for metric in _collector_metrics(source.collector.name)),
        )

    def collect(self, out: Array) -> None:
        """Write the readings into *out*, shape (6 + 2 x sources,); the interval is the loop's."""
        used = sum(os.times()[:2])
        out[0] = self._cpu_percent(used)
        out[1] = used
        out[2] = rss_bytes()
        out[3] = self.sample_duration_seconds
        out[4] = self.missed_turns_count
        out[5] = unknown(Unknown.NOT_YET_SAMPLED)
        out[6:] = [value for source in self._sources for value in (source.errors_count, source.duration_seconds)]

    def close(self) -> None:
        """Nothing is held open."""

    def _cpu_percent(self, used: float) -> float:
        now = self._clock()
        before, self._before = self._before, (now, used)
        if before is None or now <= before[0]:
            return unknown(Unknown.NOT_YET_SAMPLED)
        return 100 * (used - before[1]) / ((now - before[0]) / 1e9)


def _collector_metrics(name: str) -> tuple[Metric, Metric]:
    """Return the rows of the collector *name*."""
    failures = "failures and hangs of this collector since the sampler started"
    return (
        Metric("sampler", "errors_count", "count", failures, "", name, integer=True),
        Metric("sampler", "duration_seconds", "seconds", "newest call of this collector", "CLOCK_MONOTONIC", name),
    )


def rss_bytes() -> float:
    """Return the resident memory of this process; where /proc is missing, its peak."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return float(int(file.read().split()[1]) * resource.getpagesize())
    except OSError:
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT_BYTES)
