"""The limits of a Snapshot: what the policy remembers of each (``schema.STATE_HELP``), and the statistics beside it."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from shm_monitor.schema import PRESSING, REASON_NAMES, Level, Limit, Schema, names_of_bits
from shm_monitor.segment.layout import SlotLayout
from shm_monitor.snapshot.pattern import Pattern, Pick, unpacker
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
_FAST_COLUMN = "seconds_to_limit"
_MEMORY_MAX = 64

_limit_state: Callable[..., LimitState] = LimitState  # no type counts the statistics


class _Slow(NamedTuple):
    """What of a state stays the same from sample to sample, ready for the Struct."""

    level: str
    reasons: tuple[str, ...]
    numbers: tuple[float | None, ...]
    since_mono_seconds: float | None
    episodes: dict[str, int]


class LimitReader:
    """Reads the state of one limit. A column that its sampler does not keep is unknown."""

    def __init__(self, limit: Limit, states: Sequence[str], offset: int) -> None:
        """Read *limit*, whose *states* begin at byte *offset* of a slot."""
        self._names = (limit.name, limit.metric)
        self._offset = offset
        self._slow_columns = [name for name in states if name in _SLOW_COLUMNS]
        self._slow = unpacker([states.index(name) for name in self._slow_columns], "Q")
        self._fast = unpacker([states.index(_FAST_COLUMN)] if _FAST_COLUMN in states else [], "d")
        self._seen: dict[tuple[int, ...], _Slow] = {}

    def read(self, slot: bytes, statistics: tuple[float | None, ...], epoch_seconds: float) -> LimitState:
        """Return the state in *slot*.

        Args:
            slot: the bytes of a sample.
            statistics: value, mean and maximum of the metric.
            epoch_seconds: what to add to a time of the monotonic clock to have unix seconds.
        """
        words = self._slow(slot, self._offset)
        slow = self._seen.get(words)
        if slow is None:
            slow = self._learn(words)
        fast = self._fast(slot, self._offset)
        since = slow.since_mono_seconds
        return _limit_state(
            *self._names,
            slow.level,
            slow.reasons,
            *statistics,
            *slow.numbers,
            fast[0] if fast and fast[0] - fast[0] == 0 else None,
            None if since is None else since + epoch_seconds,
            slow.episodes.copy(),
        )

    def _learn(self, words: tuple[int, ...]) -> _Slow:
        values = struct.unpack(f"<{len(words)}d", struct.pack(f"<{len(words)}Q", *words))
        state = {name: value for name, value in zip(self._slow_columns, values, strict=True) if math.isfinite(value)}
        level = int(state.get("level", 0)) & 3
        slow = _Slow(
            LEVEL_TEXTS[level],
            names_of_bits(int(state.get("reasons", 0)), REASON_NAMES),
            (state.get("limit"), state.get("target"), state.get("capacity")),
            state.get("pressed_since_seconds") if level >= Level.PRUNE else None,
            {reason: int(state.get(f"{reason}_episodes_count", 0)) for reason in PRESSING},
        )
        if len(self._seen) >= _MEMORY_MAX:
            self._seen = {}
        self._seen[words] = slow
        return slow


def limit_readers(schema: Schema) -> list[LimitReader]:
    """Return what reads each limit of *schema*, in the order of their flags."""
    slot = SlotLayout.of(schema)
    return [LimitReader(limit, schema.states, slot.track(at)) for at, limit in enumerate(schema.limits)]


def statistic_picks(schema: Schema, pattern: Pattern) -> list[Pick]:
    """Return what takes value, mean and maximum of the metric of each limit out of a Pool of *pattern*."""
    names = schema.places
    count, rolled = len(schema.metrics), schema.rolled_count
    picks = []
    for limit in schema.limits:
        at = names.get(limit.metric, -1)
        is_rolled = 0 <= at < rolled
        picks.append(pattern.pick([at, count + at if is_rolled else -1, count + rolled + at if is_rolled else -1]))
    return picks
