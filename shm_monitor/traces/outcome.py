"""What was decided over a trace, sample by sample, and the report that it comes to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shm_monitor.decision.rules import Rule
from shm_monitor.kernels.decide import BARS_WIDTH
from shm_monitor.schema import REASON_NAMES, Level, Reason
from shm_monitor.segment.flags import LEVEL_SHIFT, REASONS_SHIFT
from shm_monitor.traces.binary import Trace
from shm_monitor.traces.episodes import OVERALL, Episode, LimitReport, Report

_EPISODES = BARS_WIDTH - 1


@dataclass(frozen=True)
class Replayed:
    """A trace of n samples and what was decided over it.

    Attributes:
        trace: the readings.
        rules: K limits.
        period_seconds: of the configuration.
        words: shape (n, K), the verdict word of each limit.
        verdicts: shape (n,), the overall one.
        bars: shape (n, K, 6): limit, target, capacity, seconds to the capacity, time-weighted mean and number of
            episodes as they were.
    """

    trace: Trace
    rules: tuple[Rule, ...]
    period_seconds: float
    words: NDArray[np.uint64]
    verdicts: NDArray[np.uint64]
    bars: NDArray[np.float64]

    def report(self) -> Report:
        """Return what it comes to."""
        times = (self.trace.times_ns - self.trace.times_ns[0]) / 1e9
        lasts = np.append(np.diff(times), 0.0)
        gaps = lasts > self.period_seconds + self.trace.interval_seconds
        observed = np.where(gaps, 0.0, lasts)
        limits = [_report_of(self, place, times, observed) for place in range(-1, len(self.rules))]
        return Report(
            self.trace.source,
            len(self.trace),
            self.trace.damaged_count,
            float(times[-1]),
            float(lasts[gaps].sum()),
            tuple(limits),
        )


def _report_of(done: Replayed, place: int, times: NDArray[np.float64], observed: NDArray[np.float64]) -> LimitReport:
    """Return the report of limit *place*; -1 is all together."""
    words = done.verdicts if place < 0 else done.words[:, place]
    levels = _levels(words)
    bits = words >> np.uint64(REASONS_SHIFT)
    unknown = np.zeros(len(words), np.bool_) if place < 0 else bits & np.uint64(Reason.UNKNOWN) != 0
    values = np.full(len(words), np.nan) if place < 0 else done.trace.values[:, done.rules[place].value]
    rule = None if place < 0 else done.rules[place]
    seconds_at = {level.text: float(observed[(levels == level) & ~unknown].sum()) for level in Level}
    pressed = levels >= Level.PRUNE
    spans = _spans(pressed, _comes_back(done, place))
    peak = None if np.isnan(values).all() else int(np.nanargmax(values))
    leads = [float(times[peak] - times[begin]) for begin, end in spans if peak is not None and begin <= peak < end]
    return LimitReport(
        OVERALL if rule is None else rule.limit.name,
        "" if rule is None else rule.limit.metric,
        "" if rule is None else rule.limit.unit,
        None if rule is None else _known(done.bars[-1, place, 0]),
        {**seconds_at, "unknown": float(observed[unknown].sum())},
        tuple(_episode(done, place, times, span) for span in spans),
        float(times[spans[0][0]]) if spans else None,
        None if peak is None else float(values[peak]),
        None if peak is None else float(times[peak]),
        leads[0] if leads else None,
    )


def _comes_back(done: Replayed, place: int) -> NDArray[np.bool_]:
    """Return at which samples pressure of limit *place* (-1: of any) came back that had been relieved."""
    which = slice(None) if place < 0 else slice(place, place + 1)
    counts, pressed = done.bars[:, which, _EPISODES], _levels(done.words[:, which]) >= Level.PRUNE
    again = (counts[1:] > counts[:-1]) & pressed[1:] & pressed[:-1]
    return np.concatenate([[False], again.any(axis=1)])


def _spans(pressed: NDArray[np.bool_], comes_back: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the episodes (first sample, one past the last): each begins with pressure, or where it comes back."""
    before, after = np.concatenate([[False], pressed]), np.concatenate([pressed, [False]])
    begins = after & ~before
    begins[:-1] |= pressed & comes_back
    ends = before & (~after | begins)
    return list(zip(np.flatnonzero(begins).tolist(), np.flatnonzero(ends).tolist(), strict=True))


def _episode(done: Replayed, place: int, times: NDArray[np.float64], span: tuple[int, int]) -> Episode:
    """Return the episode of limit *place* over the samples *span* (first, one past the last)."""
    begin, end = span
    words = (done.verdicts if place < 0 else done.words[:, place])[begin:end]
    level = Level(int(_levels(words).max()))
    value = peak = None
    bars: list[float | None] = [None] * (_EPISODES + 1)
    if place >= 0:
        column = done.rules[place].value
        readings = done.trace.values[begin:end, column]
        value = _known(readings[0])
        peak = None if np.isnan(readings).all() else float(np.nanmax(readings))
        bars = [_known(bar) for bar in done.bars[begin, place]]
    return Episode(
        float(times[begin]),
        float(times[end]) if end < len(times) else None,
        float(done.trace.realtime_ns[begin]) / 1e9,
        level.text,
        _reason_names(words),
        value,
        bars[4],
        bars[0],
        bars[2],
        bars[3],
        peak,
    )


def _reason_names(words: NDArray[np.uint64]) -> tuple[str, ...]:
    """Return the names of the reasons in *words*, those that came first before those that came later."""
    firsts = {}
    for reason in (Reason.LEVEL, Reason.FORECAST, Reason.CAPACITY, Reason.EVENT):
        places = np.flatnonzero(words >> np.uint64(REASONS_SHIFT) & np.uint64(reason))
        if len(places):
            firsts[REASON_NAMES[reason]] = int(places[0])
    return tuple(sorted(firsts, key=lambda name: firsts[name]))


def _levels(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the number of the level in each of *words*."""
    return (words >> np.uint64(LEVEL_SHIFT) & np.uint64(3)).astype(np.int64)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
