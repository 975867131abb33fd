"""Rolling statistics over the ring of one sampler."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shm_monitor.kernels import step

Samples = NDArray[np.void]

_LAST_NS = 2**63 - 1  # 292 years of uptime; later is damage


class Rolling:
    """Mean, maximum and slope of the rolled metrics over the last period, kept up sample by sample.

    The window holds the samples with ``now - time <= period``: 11 of them at 1 Hz with a period of 10 s. A NaN is
    skipped; a hole in the sample numbers ends the window there.

    Cost: the same for any period (bench/bench_kernels.py). Memory: 48 bytes per slot and rolled metric.
    """

    def __init__(self, ring: Samples, *, rolled: int, period_seconds: float) -> None:
        """Start with an empty window over *ring*, shape (slots,), in which sample n is at ``n % slots``.

        Args:
            rolled: how many metrics, from the first on, are rolled.
            period_seconds: how far back the window reaches; the ring should hold more samples than that.
        """
        self._ring = ring
        self._mono, self._values = ring["mono_ns"], ring["values"]
        self._period_ns = round(period_seconds * 1e9)
        self._cursor = np.full(step.CURSOR_WIDTH, -1)  # no sample yet: whatever comes first does not follow it
        self._stack = np.zeros((len(ring) + 2, rolled, step.AGGREGATE_WIDTH))
        self._stack[-1, :, step.MAXIMUM] = -np.inf  # the empty aggregate
        self._record: Samples | None = None
        if not step.ROLL.is_compiled and not step.ROLL.is_compiling:
            step.ROLL.compile()

    def rebuild(self, newest: int) -> None:
        """Take up the window that ends with sample *newest* of the ring, as after a takeover.

        It reaches back while the slots hold consecutive samples whose times neither rise nor leave the period, so
        garbage in the ring only makes it shorter.
        """
        ring, slots = self._ring, len(self._ring)
        first = newest + 1
        newest_ns = later_ns = int(self._mono[newest % slots])
        while max(newest - slots + 1, 0) < first - 1:
            slot = (first - 1) % slots
            mono_ns = int(self._mono[slot])
            whole = ring["number"][slot] == ring["number_end"][slot] == first - 1
            if not whole or mono_ns > later_ns or newest_ns - mono_ns > self._period_ns or newest_ns > _LAST_NS:
                break
            first, later_ns = first - 1, mono_ns
        self._cursor[:] = -1
        if first <= newest:
            self._cursor[[step.FIRST, step.MIDDLE, step.LAST]] = first, first, newest
            self._cursor[[step.LAST_NS, step.REFILL]] = newest_ns, 1

    def advance(self, record: Samples) -> None:
        """Write ``means``, ``maxima`` and ``slopes`` of *record*, shape (1,), whose number, time and values are set.

        The record is not in the ring yet; the samples before it are. Pass the same array each time: its views are kept.
        """
        if record is not self._record:
            self._bind(record)
        step.ROLL.run(self._mono, self._values, *self._views, self._cursor, self._stack, self._period_ns)

    def _bind(self, record: Samples) -> None:
        row = record[0]
        self._views = (record["number"], record["mono_ns"], row["values"], row["means"], row["maxima"], row["slopes"])
        self._record = record
