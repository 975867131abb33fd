"""The limits of a Snapshot: what the decision remembers of each (``schema.TRACK_HELP``), and its statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence

from shm_monitor.schema import PRESSING, REASON_NAMES, Level, Limit, names_of_bits
from shm_monitor.segment.columns import TrackColumns
from shm_monitor.snapshot.structs import LimitState

LEVEL_TEXTS = tuple(level.text for level in Level)


class LimitReader:
    """Reads the track of one limit. A column that its sampler does not keep is unknown."""

    def __init__(self, limit: Limit, fields: Sequence[str], offset: int) -> None:
        """Read *limit*, whose track of *fields* begins at byte *offset* of a slot."""
        self._limit, self._fields, self._offset = limit, fields, offset
        self._columns = TrackColumns(fields, fields)

    def read(self, slot: bytes, value: float | None, epoch_seconds: float) -> LimitState | None:
        """Return how the limit stands in *slot*; None where no limit is set.

        Args:
            slot: the bytes of a sample.
            value: the reading of the metric.
            epoch_seconds: what to add to a time of the monotonic clock to have unix seconds.
        """
        columns = zip(self._columns.names, self._columns.values(slot, self._offset), strict=True)
        known = {name: number for name, number in columns if math.isfinite(number)}
        reasons, level = int(known.get("reasons", 0)), int(known.get("level", 0)) & 3
        if "limit" in self._fields and "limit" not in known and not reasons:
            return None
        since = known.get("pressed_since_seconds") if level >= Level.PRUNE else None
        return LimitState(
            limit=self._limit.name,
            metric=self._limit.metric,
            level=LEVEL_TEXTS[level],
            reasons=names_of_bits(reasons, REASON_NAMES),
            value=value,
            mean=known.get("mean"),
            maximum=known.get("maximum"),
            limit_value=known.get("limit"),
            target=known.get("target"),
            capacity=known.get("capacity"),
            seconds_to_limit=known.get("seconds_to_limit"),
            since=None if since is None else since + epoch_seconds,
            episodes={reason: int(known.get(f"{reason}_episodes_count", 0)) for reason in PRESSING},
        )
