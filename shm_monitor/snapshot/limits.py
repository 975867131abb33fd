"""The limits of a Snapshot: what the policy remembers of each (``schema.TRACK_HELP``), and the statistics beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from shm_monitor.schema import PRESSING, REASON_NAMES, Level, Limit, Schema, names_of_bits
from shm_monitor.segment.columns import TrackColumns
from shm_monitor.segment.layout import SlotLayout
from shm_monitor.snapshot.pattern import Pattern, Pick
from shm_monitor.snapshot.structs import LimitState

LEVEL_TEXTS = tuple(level.text for level in Level)

_SLOW_COLUMNS = (
    "level",
    "reasons",
    "limit",
    "target",
    "capacity",
    "pressed_since_seconds",
    *(f"{reason}_episodes_count" for reason in PRESSING),
)
_FAST_COLUMNS = ("seconds_to_limit", "mean", "maximum")
_MEMORY_MAX = 64

_limit_state: Callable[..., LimitState] = LimitState  # no type counts the numbers


class _Slow(NamedTuple):
    """What of a track stays the same from sample to sample, ready for the Struct."""

    level: str
    reasons: tuple[str, ...]
    numbers: tuple[float | None, ...]
    since_mono_seconds: float | None
    episodes: dict[str, int]
    is_unset: bool


class LimitReader:
    """Reads the track of one limit. A column that its sampler does not keep is unknown."""

    def __init__(self, limit: Limit, fields: Sequence[str], offset: int) -> None:
        """Read *limit*, whose track of *fields* begins at byte *offset* of a slot."""
        self._names = (limit.name, limit.metric)
        self._offset = offset
        self._slow, self._fast = TrackColumns(fields, _SLOW_COLUMNS), TrackColumns(fields, _FAST_COLUMNS)
        self._seen: dict[tuple[int, ...], _Slow] = {}

    def read(self, slot: bytes, values: tuple[float | None, ...], epoch_seconds: float) -> LimitState | None:
        """Return how the limit stands in *slot*; None where no limit is set.

        Args:
            slot: the bytes of a sample.
            values: the reading of the metric.
            epoch_seconds: what to add to a time of the monotonic clock to have unix seconds.
        """
        words = self._slow.words(slot, self._offset)
        slow = self._seen.get(words)
        if slow is None:
            slow = self._learn(words, slot)
        if slow.is_unset:
            return None
        seconds, mean, maximum = self._fast.values(slot, self._offset)
        since = slow.since_mono_seconds
        return _limit_state(
            *self._names,
            slow.level,
            slow.reasons,
            *values,
            mean if mean - mean == 0 else None,
            maximum if maximum - maximum == 0 else None,
            *slow.numbers,
            seconds if seconds - seconds == 0 else None,
            None if since is None else since + epoch_seconds,
            slow.episodes.copy(),
        )

    def _learn(self, words: tuple[int, ...], slot: bytes) -> _Slow:
        columns = zip(self._slow.names, self._slow.values(slot, self._offset), strict=True)
        known = {name: value for name, value in columns if math.isfinite(value)}
        level = int(known.get("level", 0)) & 3
        slow = _Slow(
            LEVEL_TEXTS[level],
            names_of_bits(int(known.get("reasons", 0)), REASON_NAMES),
            (known.get("limit"), known.get("target"), known.get("capacity")),
            known.get("pressed_since_seconds") if level >= Level.PRUNE else None,
            {reason: int(known.get(f"{reason}_episodes_count", 0)) for reason in PRESSING},
            is_unset="limit" in self._slow and "limit" not in known and not known.get("reasons"),
        )
        if len(self._seen) >= _MEMORY_MAX:
            self._seen = {}
        self._seen[words] = slow
        return slow


def limit_readers(schema: Schema) -> list[LimitReader]:
    """Return what reads each limit of *schema*, in the order of their flags."""
    slot = SlotLayout.of(schema)
    return [LimitReader(limit, schema.track_fields, slot.track(at)) for at, limit in enumerate(schema.limits)]


def value_picks(schema: Schema, pattern: Pattern) -> list[Pick]:
    """Return what takes the reading of the metric of each limit out of a Pool of *pattern*."""
    names = schema.places
    return [pattern.pick([names.get(limit.metric, -1)]) for limit in schema.limits]
