"""Rolling statistics over the ring of one sampler: each reading counts once, however long it lasted.

The kernel reads the ring in place and gets the newest sample apart, before it is in the ring; sample n is in slot
``n % slots``. It is a scalar loop that also runs uncompiled, with the same results.
"""

# ruff: noqa: C901, PLR0913, PLR0915, PLR0917  a kernel takes arrays one by one

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shm_monitor.kernels.compiled import Kernel, read_only

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]
Integers = NDArray[np.int64]
Samples = NDArray[np.void]

# The cursor: the window is FIRST..LAST; the front of the stack has FIRST..MIDDLE-1, its back MIDDLE..LAST.
FIRST, MIDDLE, LAST, LAST_NS, BASE_NS, REFILL, CURSOR_WIDTH = range(7)
# An aggregate: how many readings, their mean time and value, the sums of squares and products about them, the maximum.
COUNT, MEAN_TIME, MEAN, TIMES, PRODUCTS, MAXIMUM, AGGREGATE_WIDTH = range(7)


def roll(
    ring_mono: Words,
    ring_verdict: Words,
    ring_values: Floats,
    number_word: Words,
    mono_word: Words,
    verdict_word: Words,
    row: Floats,
    means: Floats,
    maxima: Floats,
    slopes: Floats,
    cursor: Integers,
    stack: Floats,
    urgent: Integers,
    period_ns: int,
) -> None:
    """Write mean, maximum and slope of each rolled metric over the samples with ``now - time <= period``.

    Args:
        ring_mono, ring_verdict, ring_values: the older samples, shapes (slots,), (slots,) and (slots, metrics).
        number_word, mono_word, verdict_word, row: the newest sample, shapes (1,) and (metrics,). NaN is skipped.
        means, maxima, slopes: results, shape (rolled,); the slope in units per second. NaN without enough readings.
        cursor: shape (CURSOR_WIDTH,), where the window is; changed.
        stack: shape (capacity + 2, rolled, AGGREGATE_WIDTH), changed. Row ``n % capacity`` is the aggregate of samples
            n to MIDDLE - 1 (the front), the last but one that of MIDDLE to LAST (the back), the last one the empty one.
        urgent: shape (rolled,), 0 for a metric that samples between two turns (bit 0 of the verdict) only repeat:
            each reading counts once.
        period_ns: a sample exactly this old still counts.

    The front is refilled from the ring when it is used up, so that each sample is aggregated twice in its life whatever
    the period. Nothing is ever subtracted, so nothing drifts.

    Source: two-stack sliding window aggregation (Tangwongsan et al., VLDB 2015); pairwise update of means and
    co-moments: Chan, Golub, LeVeque 1983.
    """
    number, now = np.int64(number_word[0]), np.int64(mono_word[0])
    slots, rolled = ring_mono.shape[0], means.shape[0]
    back, empty = stack.shape[0] - 2, stack.shape[0] - 1
    first, middle = cursor[FIRST], cursor[MIDDLE]
    fresh = number != cursor[LAST] + 1 or now < cursor[LAST_NS] or now - cursor[LAST_NS] > period_ns
    if fresh:  # the first sample, or one after a gap: nothing older counts
        first = number
    else:
        oldest = number - back + 1  # older ones have no row in the stack, or no slot in the ring any more
        while first < number and (first < oldest or now - np.int64(ring_mono[first % slots]) > period_ns):
            first += 1
        fresh = first > middle or cursor[REFILL] != 0
    if fresh:
        middle = number
        cursor[BASE_NS] = now  # times count from here, so that they keep their digits
    refills = number - first if fresh else 0
    source = empty if fresh else back
    for turn in range(refills + 1):
        newest = turn == refills  # joins the back; the turns before it refill the front, newest first
        slot = (number - 1 - turn) % slots
        target = back if newest else (number - 1 - turn) % back
        seconds = ((now if newest else np.int64(ring_mono[slot])) - cursor[BASE_NS]) * 1e-9
        word = verdict_word[0] if newest else ring_verdict[slot]
        between = word & np.uint64(1) != 0
        if newest and fresh:
            source = empty
        for metric in range(rolled):
            value = row[metric] if newest else ring_values[slot, metric]
            for field in range(AGGREGATE_WIDTH):
                stack[target, metric, field] = stack[source, metric, field]
            if not math.isnan(value) and not (between and urgent[metric] == 0):
                count = stack[target, metric, COUNT] + 1.0
                time_off = seconds - stack[target, metric, MEAN_TIME]
                value_off = value - stack[target, metric, MEAN]
                rest = time_off - time_off / count
                stack[target, metric, COUNT] = count
                stack[target, metric, MEAN_TIME] += time_off / count
                stack[target, metric, MEAN] += value_off / count
                stack[target, metric, TIMES] += time_off * rest
                stack[target, metric, PRODUCTS] += value_off * rest
                stack[target, metric, MAXIMUM] = max(value, stack[target, metric, MAXIMUM])
        source = target
    front = first % back if first < middle else empty
    for metric in range(rolled):
        older, newer = stack[front, metric, COUNT], stack[back, metric, COUNT]
        means[metric] = maxima[metric] = slopes[metric] = np.nan
        if older + newer > 0.0:
            share = newer / (older + newer)
            time_off = stack[back, metric, MEAN_TIME] - stack[front, metric, MEAN_TIME]
            value_off = stack[back, metric, MEAN] - stack[front, metric, MEAN]
            rest = time_off * older * share
            times = stack[front, metric, TIMES] + stack[back, metric, TIMES] + time_off * rest
            products = stack[front, metric, PRODUCTS] + stack[back, metric, PRODUCTS] + value_off * rest
            means[metric] = stack[front, metric, MEAN] + value_off * share
            maxima[metric] = max(stack[front, metric, MAXIMUM], stack[back, metric, MAXIMUM])
            if times > 0.0:
                slopes[metric] = products / times
    cursor[FIRST], cursor[MIDDLE], cursor[LAST] = first, middle, number
    cursor[LAST_NS], cursor[REFILL] = now, 0


_FLOATS, _INTEGERS, _WORD = "float64[::1]", "int64[::1]", read_only("uint64", 1)
_RING, _NEWEST = (_WORD, _WORD, read_only("float64", 2)), (_WORD, _WORD, _WORD, read_only("float64", 1, "C"))
_STACK = (_INTEGERS, "float64[:, :, ::1]", read_only("int64", 1, "C"), "int64")

ROLL = Kernel(roll, f"void({', '.join((*_RING, *_NEWEST, _FLOATS, _FLOATS, _FLOATS, *_STACK))})")

_LAST_NS = 2**63 - 1  # 292 years of uptime; later is damage


class Rolling:
    """Mean, maximum and slope of the rolled metrics over the last period, kept up sample by sample.

    The window holds the samples with ``now - time <= period``: 11 of them at 1 Hz with a period of 10 s. A NaN is
    skipped; a hole in the sample numbers ends the window there.

    Cost: the same for any period (bench/bench_kernels.py). Memory: 48 bytes per slot and rolled metric.
    """

    def __init__(
        self, ring: Samples, *, rolled: int, period_seconds: float, urgent: Sequence[bool] | None = None
    ) -> None:
        """Start with an empty window over *ring*, shape (slots,), in which sample n is at ``n % slots``.

        Args:
            rolled: how many metrics, from the first on, are rolled.
            period_seconds: how far back the window reaches; the ring should hold more samples than that.
            urgent: which of them each sample reads anew; None for all. The others count at the turns alone.
        """
        self._ring = ring
        self._columns = ring["mono_ns"], ring["verdict"], ring["values"]
        self._urgent = np.ones(rolled, np.int64) if urgent is None else np.array(urgent, np.int64)
        self._period_ns = round(period_seconds * 1e9)
        self._cursor = np.full(CURSOR_WIDTH, -1)  # no sample yet: whatever comes first does not follow it
        self._stack = np.zeros((len(ring) + 2, rolled, AGGREGATE_WIDTH))
        self._stack[-1, :, MAXIMUM] = -np.inf  # the empty aggregate
        self._record: Samples | None = None

    def rebuild(self, newest: int) -> None:
        """Take up the window that ends with sample *newest* of the ring, as after a takeover.

        It reaches back while the slots hold consecutive samples whose times neither rise nor leave the period, so
        garbage in the ring only makes it shorter.
        """
        ring, slots = self._ring, len(self._ring)
        first = newest + 1
        newest_ns = later_ns = int(self._columns[0][newest % slots])
        while max(newest - slots + 1, 0) < first - 1:
            slot = (first - 1) % slots
            mono_ns = int(self._columns[0][slot])
            whole = ring["number"][slot] == ring["number_end"][slot] == first - 1
            if not whole or mono_ns > later_ns or newest_ns - mono_ns > self._period_ns or newest_ns > _LAST_NS:
                break
            first, later_ns = first - 1, mono_ns
        self._cursor[:] = -1
        if first <= newest:
            self._cursor[[FIRST, MIDDLE, LAST]] = first, first, newest
            self._cursor[[LAST_NS, REFILL]] = newest_ns, 1

    def advance(self, record: Samples) -> None:
        """Write ``means``, ``maxima`` and ``slopes`` of *record*, shape (1,), whose number, time and values are set.

        So is bit 0 of its verdict, in a sample between two turns.

        The record is not in the ring yet; the samples before it are. Pass the same array each time: its views are kept.
        """
        if record is not self._record:
            self._bind(record)
        ROLL.run(*self._columns, *self._views, self._cursor, self._stack, self._urgent, self._period_ns)

    def _bind(self, record: Samples) -> None:
        row = record[0]
        words = (record["number"], record["mono_ns"], record["verdict"])
        self._views = (*words, row["values"], row["means"], row["maxima"], row["slopes"])
        self._record = record
