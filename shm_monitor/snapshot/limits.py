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
_FAST_COLUMNS = ("seconds_to_limit", "mean", "maximum")
_MEMORY_MAX = 64

_limit_state: Callable[..., LimitState] = LimitState  # no type counts the numbers


class _Slow(NamedTuple):
    """What of a state stays the same from sample to sample, ready for the Struct."""

    level: str
    reasons: tuple[str, ...]
    numbers: tuple[float | None, ...]
    since_mono_seconds: float | None
    episodes: dict[str, int]
    is_unset: bool


class LimitReader:
    """Reads the state of one limit. A column that its sampler does not keep is unknown."""

    def __init__(self, limit: Limit, states: Sequence[str], offset: int) -> None:
        """Read *limit*, whose *states* begin at byte *offset* of a slot."""
        self._names = (limit.name, limit.metric)
        self._offset = offset
        self._slow_columns = [name for name in states if name in _SLOW_COLUMNS]
        self._slow = unpacker([states.index(name) for name in self._slow_columns], "Q")
        self._has_fast = all(name in states for name in _FAST_COLUMNS)  # next to each other, in this order
        self._fast = unpacker([states.index(name) for name in _FAST_COLUMNS] if self._has_fast else [], "d")
        self._seen: dict[tuple[int, ...], _Slow] = {}

    def read(self, slot: bytes, values: tuple[float | None, ...], epoch_seconds: float) -> LimitState | None:
        """Return the state in *slot*; None where no limit is set.

        Args:
            slot: the bytes of a sample.
            values: the reading of the metric.
            epoch_seconds: what to add to a time of the monotonic clock to have unix seconds.
        """
        words = self._slow(slot, self._offset)
        slow = self._seen.get(words)
        if slow is None:
            slow = self._learn(words)
        if slow.is_unset:
            return None
        seconds, mean, maximum = self._fast(slot, self._offset) if self._has_fast else (math.nan,) * 3
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
            is_unset="limit" in self._slow_columns and "limit" not in state and not state.get("reasons"),
        )
        if len(self._seen) >= _MEMORY_MAX:
            self._seen = {}
        self._seen[words] = slow
        return slow


def limit_readers(schema: Schema) -> list[LimitReader]:
    """Return what reads each limit of *schema*, in the order of their flags."""
    slot = SlotLayout.of(schema)
    return [LimitReader(limit, schema.states, slot.track(at)) for at, limit in enumerate(schema.limits)]


def value_picks(schema: Schema, pattern: Pattern) -> list[Pick]:
    """Return what takes the reading of the metric of each limit out of a Pool of *pattern*."""
    names = schema.places
    return [pattern.pick([names.get(limit.metric, -1)]) for limit in schema.limits]
