"""The decision: limits against statistics, in one compiled step per sample.

Where the step goes beyond the letter of the design note on decisions, and why:

* An event of reclaim (``memory.events``: high, max) presses only while the value is at the target or above. Page cache
  makes such events too: a healthy data loader that reads more than the cgroup holds would be pressed for ever.
* In a ramp the last of the three parts counts only as far as it leaves the others more than a quarter of the mean rise.
  A higher value then never makes less of a ramp, and a step still makes none.
* Times are compared with half an interval of grace, because a sample comes at its turn or a little late.
* A hole of more than a period in the readings, sampler down or value unknown, forgets the latches.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shm_monitor.decision.rules import Rule
from shm_monitor.kernels import step
from shm_monitor.kernels.rolling import Samples
from shm_monitor.schema import STATE_FIELDS, Level, Reason
from shm_monitor.units import amount

_log = logging.getLogger(__name__)

States = NDArray[np.float64]

# The columns that are never NaN; level and reasons first.
_COUNTS = [
    step.LEVEL,
    step.REASONS,
    step.EPISODES,
    *range(step.EACH + step.SET_COUNT, step.STATE_WIDTH, step.EACH_WIDTH),
]


class Tables:
    """The *rules* as the arrays that the step reads.

    Attributes:
        columns: shape (K, 4), the places of value, capacity, reclaim and OOM counter.
        bounds: shape (K, 3), limit, constant capacity and target share.
        timing: shape (3,), seconds: the period, half an interval, the horizon of the forecast.
    """

    def __init__(
        self, rules: Sequence[Rule], *, period_seconds: float, interval_seconds: float, horizon_seconds: float
    ) -> None:
        places = [(rule.value, rule.capacity, rule.reclaims, rule.ooms) for rule in rules]
        bounds = [(rule.ceiling, rule.capacity_constant, rule.target) for rule in rules]
        self.columns = np.array(places, np.int64).reshape(-1, 4)
        self.bounds = np.array(bounds, np.float64).reshape(-1, 3)
        self.timing = np.array([period_seconds, interval_seconds / 2, horizon_seconds])


def fresh_state(count: int) -> States:
    """Return the state of *count* limits of which nothing is known, shape (count, len(STATE_FIELDS))."""
    state = np.full((count, len(STATE_FIELDS)), math.nan)
    state[:, _COUNTS] = 0.0
    return state


def resumed_state(state: States, count: int) -> States:
    """Return a copy of *state*, the one of an earlier sampler; a row that no step writes is replaced by a fresh one."""
    fresh = fresh_state(count)
    if state.shape != fresh.shape:
        return fresh
    counts = np.nan_to_num(state[:, _COUNTS], nan=-1.0)
    sound = ((counts >= 0) & (counts < 2.0**53) & (counts == np.floor(counts))).all(axis=1)
    sound &= (counts[:, 0] <= Level.CRITICAL) & (counts[:, 1] < 2 * Reason.UNKNOWN)
    sound &= ~np.isinf(state).any(axis=1)
    return np.where(sound[:, None], state, fresh)


class Decider:
    """Decides each sample over all limits, and logs one line when a limit begins to press and one when it ends.

    Attributes:
        words: shape (K,), the verdict word of each limit after the last :meth:`decide`.
    """

    STATE_FIELDS = STATE_FIELDS

    def __init__(
        self,
        rules: Sequence[Rule],
        ring: Samples,
        *,
        period_seconds: float,
        interval_seconds: float,
        horizon_seconds: float,
    ) -> None:
        """Start with nothing known.

        Args:
            rules: the limits, in the order of their flags.
            ring: shape (slots,), at least 4 of them; sample n is at ``n % slots``. Forecasts read it in place.
            period_seconds: the observation period.
            interval_seconds: between two samples; half of it is the grace for a late one.
            horizon_seconds: how far ahead a ramp is followed.
        """
        self._rules = tuple(rules)
        tables = Tables(
            rules, period_seconds=period_seconds, interval_seconds=interval_seconds, horizon_seconds=horizon_seconds
        )
        self._tables = (tables.columns, tables.bounds, tables.timing)
        self._ring = (ring["number"], ring["mono_ns"], ring["values"])
        self._state = fresh_state(len(rules))
        self.words = np.zeros(len(rules), np.uint64)
        self._pressed = np.zeros(len(rules), np.bool_)
        self._record: Samples | None = None
        self._warned = False
        if not step.DECIDE.is_compiled and not step.DECIDE.is_compiling:
            step.DECIDE.compile()

    def resume(self, state: States) -> None:
        """Go on from *state*, shape (K, len(STATE_FIELDS)): the ``limits`` of the last sample before a takeover."""
        self._state = resumed_state(state, len(self._rules))
        self._pressed = self._state[:, step.LEVEL] >= Level.PRUNE

    def decide(self, record: Samples) -> None:
        """Write ``limits`` and ``verdict`` of *record*, shape (1,), which :meth:`Rolling.advance` has gone over.

        Pass the same array each time: its views are kept.
        """
        if record is not self._record:
            self._bind(record)
        told = step.DECIDE.run(*self._ring, *self._views, *self._tables, self._state, self.words, self._verdict)
        self._limits[...] = self._state
        if told:
            self._tell(told)

    def _bind(self, record: Samples) -> None:
        row = record[0]
        self._views = (record["number"], record["mono_ns"], row["values"], row["means"], row["maxima"], row["slopes"])
        self._limits: States = row["limits"]
        self._verdict: NDArray[np.uint64] = record["verdict"]
        self._record = record

    def _tell(self, told: int) -> None:
        """Log what begins, what ends, and once a limit that the capacity makes useless."""
        if told & step.LIMIT_ABOVE_CAPACITY and not self._warned:
            self._warned = True
            for rule, state in zip(self._rules, self._state, strict=True):
                if rule.ceiling > state[step.CAPACITY]:
                    _log.warning(above_capacity_text(rule, state))
        if told & step.PRESSED_CHANGED:
            self._tell_episodes()

    def _tell_episodes(self) -> None:
        pressed = self._state[:, step.LEVEL] >= Level.PRUNE
        for place in np.flatnonzero(pressed != self._pressed):
            rule, state = self._rules[place], self._state[place]
            if pressed[place]:
                _log.warning(begin_text(rule, state))
            else:
                _log.info(end_text(rule, state, float(self._views[2][rule.value]), self._views[1][0] * 1e-9))
        self._pressed = pressed


def above_capacity_text(rule: Rule, state: States) -> str:
    """Return the warning that the limit of *rule* lies above what there is."""
    unit = rule.limit.unit
    return (
        f"{rule.limit.name}: the configured limit {amount(rule.ceiling, unit)} is above the capacity "
        f"{amount(state[step.CAPACITY], unit)}; pressing at 90 % of it, {amount(state[step.LIMIT], unit)}"
    )


def begin_text(rule: Rule, state: States) -> str:
    """Return the line that says that *rule* begins to press, why, and the numbers at that time."""
    unit, reasons = rule.limit.unit, Reason(int(state[step.REASONS]))
    names = [str(one.name).lower() for one in reasons]
    first = next(place for place in range(4) if reasons & 1 << place)
    numbers = state[step.EACH + first * step.EACH_WIDTH :]
    parts = [
        f"{rule.limit.name}: {Level(int(state[step.LEVEL])).name.lower()} ({', '.join(names)})",
        f"at {amount(numbers[step.SET_VALUE], unit)}, mean {amount(numbers[step.SET_MEAN], unit)}",
        f"limit {amount(numbers[step.SET_LIMIT], unit)}",
    ]
    if not math.isnan(numbers[step.SET_CAPACITY]):
        parts.append(f"capacity {amount(numbers[step.SET_CAPACITY], unit)}")
    if not math.isnan(numbers[step.SET_SECONDS]):
        parts.append(f"{numbers[step.SET_SECONDS]:.1f} s to the end")
    return ", ".join(parts)


def end_text(rule: Rule, state: States, value: float, now_seconds: float) -> str:
    """Return the line that says that *rule* no longer presses."""
    lasted = now_seconds - state[step.PRESSED_SINCE]
    now = "unknown" if math.isnan(value) else amount(value, rule.limit.unit)
    return (
        f"{rule.limit.name}: over after {lasted:.1f} s, now {now}, target {amount(state[step.TARGET], rule.limit.unit)}"
    )
