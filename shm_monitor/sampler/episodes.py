"""The sampler's side of the log of episodes: what begins, changes its level and ends, written once it is published.

While nothing presses a turn costs one comparison. Whatever is wrong with the file is said once, and stops no sampler.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from shm_monitor.schema import PRESSING, TRACK_FIELDS, Level
from shm_monitor.segment import episode_file
from shm_monitor.segment.flags import INJECTED_BEFORE, level_of, reasons_of
from shm_monitor.snapshot.episode_log import OVERALL, EpisodeRecord, encoded, unfinished

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from shm_monitor.decision.rules import Rule

_log = logging.getLogger("shm_monitor.sampler")

_SINCE = TRACK_FIELDS.index("pressed_since_seconds")
_KNOWN_SINCE = TRACK_FIELDS.index("known_since_seconds")
_LIMIT = TRACK_FIELDS.index("limit")
_CAPACITY = TRACK_FIELDS.index("capacity")
_SAME_SECONDS = 1e-3  # times that were rounded differently; samples are at least 20 ms apart

Event = Literal["begin", "level", "end"]


class _Now(NamedTuple):
    """What one sample says of one limit, or of all together; times are seconds of the monotonic clock."""

    limit: str
    unit: str
    level: Level
    reasons: tuple[str, ...]
    since: float
    is_after_hole: bool = False
    value: float | None = None
    limit_value: float | None = None
    capacity: float | None = None

    @property
    def is_pressed(self) -> bool:
        return self.level >= Level.PRUNE

    @property
    def number(self) -> int:
        return round(self.since * 1e3) if math.isfinite(self.since) else 0


class Episodes:
    """The episodes of one sampler. It goes on with those that an earlier one left open, or says that they were lost."""

    def __init__(self, name: str, rules: Sequence[Rule]) -> None:
        """Write to the log of *name*, which is made at the first event."""
        self._name = name
        self._rules = tuple(rules)
        self._names = {OVERALL, *(rule.limit.name for rule in rules)}
        self._is_silent = False
        self._open: dict[str, EpisodeRecord] = {}
        try:
            self._open = unfinished(name)
        except episode_file.TROUBLE as error:
            self._say(error)

    def turn(self, record: NDArray[np.void], words: NDArray[np.uint64]) -> None:
        """Write what changed with the sample in *record*, shape (1,), whose verdicts are *words*, shape (K,)."""
        overall = int(record["verdict"][0])
        if not self._open and level_of(overall) < Level.PRUNE:
            return
        self._write(list(self._events(record[0], [int(word) for word in words], overall)))

    def stop(self, mono: float, realtime: float) -> None:
        """Say that this sampler stops now, at *mono* of the monotonic clock, while some episodes last."""
        self._write([_lost(one, realtime, lasted=_lasted(one.number, mono)) for one in self._open.values()])
        self._open.clear()

    def _events(self, sample: np.void, words: list[int], overall: int) -> Iterator[EpisodeRecord]:
        mono, realtime = float(sample["mono_ns"]) / 1e9, float(sample["realtime_ns"]) / 1e9
        limits = [self._now(place, sample, word) for place, word in enumerate(words)]
        # Its number stays when the limit that began it ends before another one does.
        goes_on = any(self._goes_on(one) for one in limits if one.limit in self._open)
        came_back = {one.limit for one in limits if self._came_back(one)}
        if came_back:
            came_back.add(OVERALL)
        for limit in self._open.keys() - self._names:
            yield _lost(self._open.pop(limit), realtime)
        first = min((one.since for one in limits if one.is_pressed), default=math.nan)
        everything = _Now(OVERALL, "", level_of(overall), _names_of(overall), first)
        told = _Told(mono, realtime, is_injected=bool(overall & INJECTED_BEFORE))
        for one in (*limits, everything):
            same = goes_on if one is everything else self._goes_on(one)
            yield from self._changes(one, told, goes_on=same, came_back=one.limit in came_back)

    def _now(self, place: int, sample: np.void, word: int) -> _Now:
        limit, track = self._rules[place].limit, sample["limits"][place]
        return _Now(
            limit.name,
            limit.unit,
            level_of(word),
            _names_of(word),
            float(track[_SINCE]),
            abs(float(track[_KNOWN_SINCE]) - float(sample["mono_ns"]) * 1e-9) < _SAME_SECONDS,
            _known(sample["values"][self._rules[place].value]),
            _known(track[_LIMIT]),
            _known(track[_CAPACITY]),
        )

    def _goes_on(self, now: _Now) -> bool:
        """Say that the open episode is this one; one that is over after a hole in the readings ended unseen."""
        was = self._open.get(now.limit)
        return was is not None and was.number == now.number and (now.is_pressed or not now.is_after_hole)

    def _came_back(self, now: _Now) -> bool:
        """Say that the open episode was relieved and the next one begins now, with no calm between them."""
        was = self._open.get(now.limit)
        return was is not None and now.is_pressed and not now.is_after_hole and now.number > was.number

    def _changes(self, now: _Now, told: _Told, *, goes_on: bool, came_back: bool) -> Iterator[EpisodeRecord]:
        """Yield what happened to a limit, whose open episode *goes_on* or was another one, and keep what lasts."""
        was = self._open.pop(now.limit, None)
        if was is not None and not goes_on:
            yield told.record("end", now, was) if came_back else _lost(was, told.realtime)
            was = None
        if was is None:
            if now.is_pressed:
                self._open[now.limit] = begun = told.record("begin", now, None)
                yield begun
            return
        kept = told.record("level" if now.is_pressed else "end", now, was)
        if now.is_pressed:
            self._open[now.limit] = kept
        if now.level.text != was.level:
            yield kept

    def _write(self, records: list[EpisodeRecord]) -> None:
        if not records:
            return
        try:
            episode_file.append(self._name, encoded(records))
            self._is_silent = False
        except episode_file.TROUBLE as error:
            self._say(error)

    def _say(self, error: Exception) -> None:
        if not self._is_silent:
            self._is_silent = True
            _log.warning("the log of episodes has gaps: %s", error)


class _Told(NamedTuple):
    """When a sample was taken, on the monotonic clock and in unix seconds, and whether its readings are true."""

    mono: float
    realtime: float
    is_injected: bool

    def record(self, event: Event, now: _Now, was: EpisodeRecord | None) -> EpisodeRecord:
        """Return the *event* of *now*; *was* is what its episode said last, None where it begins."""
        readings = [one for one in (now.value, None if was is None else was.peak) if one is not None]
        number = now.number if was is None else was.number
        return EpisodeRecord(
            event=event,
            limit=now.limit,
            number=number,
            time=self.realtime,
            since=self.realtime - self.mono + now.since if was is None else was.since,
            level=now.level.text,
            reasons=now.reasons if event != "end" or was is None else was.reasons,
            unit=now.unit,
            value=now.value,
            peak=max(readings, default=None),
            limit_value=now.limit_value,
            capacity=now.capacity,
            duration_seconds=_lasted(number, self.mono) if event == "end" else None,
            injected=self.is_injected,
        )


def _lost(was: EpisodeRecord, realtime: float, *, lasted: float | None = None) -> EpisodeRecord:
    return msgspec.structs.replace(was, event="lost", time=realtime, duration_seconds=lasted)


def _lasted(number: int, mono: float) -> float:
    """Return the seconds since the episode *number* began: by the monotonic clock, which nobody sets."""
    return max(mono - number / 1e3, 0.0)


def _names_of(word: int) -> tuple[str, ...]:
    return tuple(name for bit, name in enumerate(PRESSING) if reasons_of(word) >> bit & 1)


def _known(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None
