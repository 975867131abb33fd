"""Run collectors so that one that fails, blocks or hangs costs its own readings only."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Protocol

import numpy as np

from shm_monitor.collectors.base import UrgentCollector
from shm_monitor.schema import Unknown, unknown, why_unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from shm_monitor.collectors.base import Array, Collector

_log = logging.getLogger("shm_monitor.sampler")

HANG_SECONDS_MIN = 2.0  # a driver may pause for a second without being called hung


class Source(Protocol):
    """A collector in its place: read it each turn, it never raises and never blocks.

    Attributes:
        collector: the one behind it.
        last_ok_mono_ns: when it last succeeded; 0 before the first.
        errors_count: failures and hangs so far.
        duration_seconds: how long the newest call took that came back; NaN before the first.
    """

    collector: Collector
    last_ok_mono_ns: int
    errors_count: int
    duration_seconds: float

    def read(self, out: Array) -> None:
        """Write the newest readings into *out*, or why there are none."""
        ...

    def close(self) -> None:
        """Stop; do not wait for a call that hangs."""
        ...


def source_for(collector: Collector, interval_seconds: float, clock: Callable[[], int] = time.monotonic_ns) -> Source:
    """Return the source that *collector* needs: a thread of its own where its calls can block."""
    if collector.threaded and collector.metrics:  # a machine without a GPU need not wake up for it
        return ThreadedSource(collector, collector.interval_seconds or interval_seconds, clock)
    return InlineSource(collector, clock)


class InlineSource:
    """A collector that is read in the sampling loop itself: counters of the kernel, which do not block."""

    def __init__(self, collector: Collector, clock: Callable[[], int]) -> None:
        """Read *collector* whenever asked."""
        self.collector = collector
        self.last_ok_mono_ns = 0
        self.errors_count = 0
        self.duration_seconds = unknown(Unknown.NOT_YET_SAMPLED)
        self._clock = clock
        self._guard = _Guard(collector)

    def read(self, out: Array) -> None:
        """Collect now."""
        began_ns = self._clock()
        good = self._guard.collect(out)
        ended_ns = self._clock()
        self.duration_seconds = (ended_ns - began_ns) / 1e9
        if good:
            self.last_ok_mono_ns = ended_ns
        else:
            self.errors_count += 1

    def read_between(self, out: Array) -> None:
        """Collect what is urgent now; *out* has the readings of before."""
        if isinstance(self.collector, UrgentCollector) and not self._guard.run(self.collector.collect_between, out):
            self.errors_count += 1

    def close(self) -> None:
        """Close the collector."""
        self.collector.close()


class ThreadedSource:
    """A collector with one thread and its own cadence. The thread is made once; if it hangs, it is the only one."""

    def __init__(self, collector: Collector, interval_seconds: float, clock: Callable[[], int]) -> None:
        """Start collecting every *interval_seconds*."""
        self.collector = collector
        self.last_ok_mono_ns = 0
        self.errors_count = 0
        self.duration_seconds = unknown(Unknown.NOT_YET_SAMPLED)
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._hang_ns = int(max(3 * interval_seconds, HANG_SECONDS_MIN) * 1e9)
        self._guard = _Guard(collector)
        self._newest = np.full(len(collector.metrics), unknown(Unknown.NOT_YET_SAMPLED))
        self._turned_ns = clock()
        self._hangs = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"collector-{collector.name}", daemon=True)
        self._thread.start()

    def read(self, out: Array) -> None:
        """Copy what the thread last collected; "timeout" when it has not come back for three of its turns."""
        hangs = self._clock() - self._turned_ns > self._hang_ns
        if hangs and not self._hangs:
            self.errors_count += 1
            _log.warning("collector %s hangs: its readings are unknown until it returns", self.collector.name)
        elif self._hangs and not hangs:
            _log.warning("collector %s returned", self.collector.name)
        self._hangs = hangs
        out[:] = unknown(Unknown.TIMEOUT) if hangs else self._newest

    def close(self) -> None:
        """Ask the thread to end; a hanging one is left to the end of the process."""
        self._stop.set()
        self._thread.join(timeout=0.2)
        if not self._thread.is_alive():
            self.collector.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            readings, began_ns = np.empty(len(self.collector.metrics)), self._clock()
            good = self._guard.collect(readings)
            self._newest = readings
            self._turned_ns = self._clock()
            self.duration_seconds = (self._turned_ns - began_ns) / 1e9
            if good:
                self.last_ok_mono_ns = self._turned_ns
            else:
                self.errors_count += 1
            self._stop.wait(self._interval_seconds)


class _Guard:
    """Call a collector; an exception becomes unknown readings and one line in the log per change of state."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._failing = False
        # The devices of a driver are lost one by one; counters of the kernel are all there, or none is.
        instances = [metric.instance if collector.threaded else "" for metric in collector.metrics]
        self._places = [[at for at, each in enumerate(instances) if each == one] for one in dict.fromkeys(instances)]

    def collect(self, out: Array) -> bool:
        """Fill *out*; return whether the collector succeeded: a device of which nothing could be read is a failure."""
        return self.run(self._collector.collect, out) and not any(_is_lost(out[places]) for places in self._places)

    def run(self, collect: Callable[[Array], None], out: Array) -> bool:
        """Have *collect*, a method of the collector, fill *out*; return whether it succeeded."""
        try:
            collect(out)
        except Exception as error:  # noqa: BLE001 - whatever a driver's binding raises
            out[:] = unknown(Unknown.ERROR)
            if not self._failing:
                _log.warning("collector %s fails: %s: %s", self._collector.name, type(error).__name__, error)
            self._failing = True
            return False
        if self._failing:
            _log.warning("collector %s works again", self._collector.name)
        self._failing = False
        return True


_FAILURES = frozenset({Unknown.ERROR, Unknown.GPU_LOST, Unknown.TIMEOUT})


def _is_lost(readings: Array) -> bool:
    """Say whether none of *readings* is known, and one of them because it failed: not all machines have everything."""
    return bool(np.isnan(readings).all()) and any(why_unknown(one) in _FAILURES for one in readings.tolist())
