"""The decision: limits against readings, in one compiled step per sample. docs/decisions.md says which, and why.

Where the step goes beyond what is written there:

* Times are compared with half an interval of grace, because a sample comes at its turn or a little late.
* A hole of more than a period in the readings, sampler down or value unknown, forgets the latches.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shm_monitor.decision.rules import Rule
from shm_monitor.kernels import decide as step
from shm_monitor.kernels.roll import Samples
from shm_monitor.schema import REASON_NAMES, TRACK_FIELDS, Level, Reason, names_of_bits
from shm_monitor.units import amount, duration

_log = logging.getLogger(__name__)

Published = NDArray[np.float64]

# The columns that are never NaN; level and reasons first.
_COUNTS = [
    step.LEVEL,
    step.REASONS,
    step.EPISODES,
    *range(step.EACH + step.SET_COUNT, step.TRACK_WIDTH, step.EACH_WIDTH),
]
_INTERPRETED_PERIODS = (
    1  # of the history that a takeover goes over while nothing is compiled: 0.1 ms a sample and limit
)
_LAST_NS = 2**63 - 1  # 292 years of uptime; later is damage


class Tables(NamedTuple):
    """Rules as the arrays that the step reads.

    Args:
        columns: shape (K, COLUMNS_WIDTH), where the readings of each limit are.
        bounds: shape (K, BOUNDS_WIDTH), limit, constant capacity, target share and depth.
        timing: shape (TIMING_WIDTH,), seconds: the period and the horizon of the forecast.
    """

    columns: NDArray[np.int64]
    bounds: NDArray[np.float64]
    timing: NDArray[np.float64]

    @classmethod
    def of(cls, rules: Sequence[Rule], *, period_seconds: float, horizon_seconds: float) -> Tables:
        """Return the tables of *rules*."""
        places = [(one.value, one.capacity, one.reclaims, one.ooms, one.stall, one.urgent) for one in rules]
        bounds = [(one.ceiling, one.capacity_constant, one.target, one.depth) for one in rules]
        return cls(
            np.array(places, np.int64).reshape(-1, step.COLUMNS_WIDTH),
            np.array(bounds, np.float64).reshape(-1, step.BOUNDS_WIDTH),
            np.array([period_seconds, horizon_seconds]),
        )


class Track(NamedTuple):
    """The memory of a decision over K limits; the step changes it.

    Args:
        buckets: shape (K, BUCKETS, BUCKET_WIDTH), the readings of the last eight periods, summed up.
        recent: shape (K, RECENT_WIDTH), the newest ones.
        published: shape (K, TRACK_WIDTH), what is published.
    """

    buckets: NDArray[np.float64]
    recent: NDArray[np.float64]
    published: Published

    @classmethod
    def fresh(cls, count: int) -> Track:
        """Return the memory of *count* limits of which nothing is known."""
        buckets = np.zeros((count, step.BUCKETS, step.BUCKET_WIDTH))
        buckets[:, :, step.ID] = -np.inf  # no bucket, also soon after the boot, when -1 would be one
        recent = np.full((count, step.RECENT_WIDTH), math.nan)
        recent[:, [step.KNOWN_COUNT, step.RATE, step.RELIEVED]] = 0.0
        return cls(buckets, recent, fresh_published(count))


def fresh_published(count: int) -> Published:
    """Return the published part of *count* limits of which nothing is known, shape (count, len(TRACK_FIELDS))."""
    published = np.full((count, len(TRACK_FIELDS)), math.nan)
    published[:, _COUNTS] = 0.0
    return published


def resumed_published(published: Published, count: int) -> Published:
    """Return a copy of *published*, left by an earlier sampler, with a fresh row for each that no step writes."""
    fresh = fresh_published(count)
    if published.shape != fresh.shape:
        return fresh
    counts = np.nan_to_num(published[:, _COUNTS], nan=-1.0)
    sound = ((counts >= 0) & (counts < 2.0**53) & (counts == np.floor(counts))).all(axis=1)
    sound &= (counts[:, 0] <= Level.CRITICAL) & (counts[:, 1] < 2 * Reason.UNKNOWN)
    sound &= ~np.isinf(published).any(axis=1)
    return np.where(sound[:, None], published, fresh)


class Decider:
    """Decides each sample over all limits, and logs one line when a limit begins to press and one when it ends.

    Attributes:
        words: shape (K,), the verdict word of each limit after the last ``decide``.
    """

    def __init__(self, rules: Sequence[Rule], *, period_seconds: float, horizon_seconds: float) -> None:
        """Start with nothing known.

        Args:
            rules: the limits, in the order of their flags.
            period_seconds: the observation period.
            horizon_seconds: how far ahead a ramp is followed.
        """
        self._rules = tuple(rules)
        self._tables = Tables.of(rules, period_seconds=period_seconds, horizon_seconds=horizon_seconds)
        self._track = Track.fresh(len(rules))
        self.words = np.zeros(len(rules), np.uint64)
        self._wait = np.full(1, np.inf)
        self._since = np.full(len(rules), math.nan)  # that each limit presses; NaN while it does not
        self._record: Samples | None = None
        self._warned = False

    @property
    def wait_seconds(self) -> float:
        """In how many seconds memory should be looked at again, by its newest rise; infinite while it does not rise."""
        return float(self._wait[0])

    def resume(self, ring: Samples, newest: int) -> None:
        """Go on from what an earlier sampler left in *ring*, shape (slots,), whose newest sample is number *newest*.

        What a decision remembers of the readings is made again out of them, by the limits of now; what it had decided
        is taken from the newest sample.
        """
        replayed = self._track
        verdict = np.zeros(1, np.uint64)
        for slot in self._history(ring, newest):
            verdict[:] = ring["verdict"][slot]
            step.DECIDE.run(
                ring["mono_ns"][slot : slot + 1],
                ring["values"][slot],
                *self._tables,
                *replayed,
                self.words,
                verdict,
                self._wait,
            )
        published = resumed_published(ring["limits"][newest % len(ring)].copy(), len(self._rules))
        for column in (step.KNOWN_SINCE, step.KNOWN_UNTIL):  # a limit that was switched off knew of no readings
            published[:, column] = np.fmin(published[:, column], replayed.published[:, column])
        self._track = Track(replayed.buckets, replayed.recent, published)
        self._since = _pressed_since(published)

    def _history(self, ring: Samples, newest: int) -> list[int]:
        """Return the slots of the samples that can be trusted, oldest first; garbage in the ring ends it there."""
        slots, mono = len(ring), ring["mono_ns"]
        newest_ns = later_ns = int(mono[newest % slots])
        reach_ns = (
            newest_ns if step.DECIDE.is_compiled else self._tables.timing[step.PERIOD] * 1e9 * _INTERPRETED_PERIODS
        )
        found: list[int] = []
        for number in range(newest, max(newest - slots, 0), -1):
            slot = number % slots
            mono_ns = int(mono[slot])
            whole = ring["number"][slot] == ring["number_end"][slot] == number
            if not whole or mono_ns > later_ns or newest_ns - mono_ns > reach_ns or newest_ns > _LAST_NS:
                break
            found.append(slot)
            later_ns = mono_ns
        return found[::-1]

    def decide(self, record: Samples, *, injected: bool = False) -> None:
        """Write ``limits`` and ``verdict`` of *record*, shape (1,), whose time and values are set.

        So is bit 0 of its verdict, in a sample between two turns. Pass the same array each time: its views are kept.
        The log says of what is decided now that it rests on *injected* readings.
        """
        if record is not self._record:
            self._bind(record)
        told = step.DECIDE.run(*self._views, *self._tables, *self._track, self.words, self._verdict, self._wait)
        self._limits[...] = self._track.published
        if told:
            self._tell(told, ", INJECTED readings" if injected else "")

    def _bind(self, record: Samples) -> None:
        row = record[0]
        self._views = (record["mono_ns"], row["values"])
        self._limits: Published = row["limits"]
        self._verdict: NDArray[np.uint64] = record["verdict"]
        self._record = record

    def _tell(self, told: int, mark: str) -> None:
        """Log what begins, what ends, and once a limit that the capacity makes useless."""
        if told & step.LIMIT_ABOVE_CAPACITY and not self._warned:
            self._warned = True
            for rule, track in zip(self._rules, self._track.published, strict=True):
                if rule.ceiling > track[step.CAPACITY] and track[step.LIMIT] < rule.ceiling:
                    _log.warning(above_capacity_text(rule, track))
        if told & step.PRESSED_CHANGED:
            self._tell_episodes(mark)

    def _tell_episodes(self, mark: str) -> None:
        since = _pressed_since(self._track.published)
        for place in np.flatnonzero((since != self._since) & ~(np.isnan(since) & np.isnan(self._since))):
            rule, track = self._rules[place], self._track.published[place]
            if math.isnan(since[place]):
                value, now_seconds = float(self._views[1][rule.value]), self._views[0][0] * 1e-9
                _log.info(end_text(rule, track, value, now_seconds) + mark)
            else:
                _log.warning(begin_text(rule, track, again=not math.isnan(self._since[place])) + mark)
        self._since = since


def _pressed_since(published: Published) -> NDArray[np.float64]:
    """Return since when each limit presses, in seconds; NaN for not now."""
    return np.where(published[:, step.LEVEL] >= Level.PRUNE, published[:, step.PRESSED_SINCE], math.nan)


def above_capacity_text(rule: Rule, track: Published) -> str:
    """Return the warning that the limit of *rule* lies above what there is."""
    unit = rule.limit.unit
    return (
        f"{rule.limit.name}: the configured limit {amount(rule.ceiling, unit)} is above the capacity "
        f"{amount(track[step.CAPACITY], unit)}; pressing at 90 % of it, {amount(track[step.LIMIT], unit)}"
    )


def begin_text(rule: Rule, track: Published, *, again: bool = False) -> str:
    """Return the line that says that *rule* presses, or *again* after a relief, why, and the numbers at that time."""
    unit, reasons = rule.limit.unit, int(track[step.REASONS])
    names = names_of_bits(reasons, REASON_NAMES)
    first = 1 if again and reasons & Reason.FORECAST else next(place for place in range(4) if reasons & 1 << place)
    numbers = track[step.EACH + first * step.EACH_WIDTH :]
    parts = [
        f"{rule.limit.name}: {Level(int(track[step.LEVEL])).text}{' again' if again else ''} ({', '.join(names)})",
        f"at {amount(numbers[step.SET_VALUE], unit)}, mean {amount(numbers[step.SET_MEAN], unit)}",
        f"limit {amount(numbers[step.SET_LIMIT], unit)}",
    ]
    if not math.isnan(numbers[step.SET_CAPACITY]):
        parts.append(f"capacity {amount(numbers[step.SET_CAPACITY], unit)}")
    if not math.isnan(numbers[step.SET_SECONDS]):
        parts.append(f"{duration(numbers[step.SET_SECONDS])} to the end")
    return ", ".join(parts)


def end_text(rule: Rule, track: Published, value: float, now_seconds: float) -> str:
    """Return the line that says that *rule* no longer presses."""
    lasted = now_seconds - track[step.PRESSED_SINCE]
    now = "unknown" if math.isnan(value) else amount(value, rule.limit.unit)
    return (
        f"{rule.limit.name}: over after {lasted:.1f} s, now {now}, target {amount(track[step.TARGET], rule.limit.unit)}"
    )
