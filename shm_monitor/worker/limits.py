"""What a sample says of each limit, as plain numbers, and how much is left of them.

Where the numbers stand is worked out once per segment, and a sample is read once, whoever asks and however often.
"""

from __future__ import annotations

import math
import struct

from shm_monitor.light import TYPE_CHECKING, NamedTuple
from shm_monitor.schema import TRACK_FIELDS, Level
from shm_monitor.segment.columns import TrackColumns
from shm_monitor.segment.layout import WORD_BYTES
from shm_monitor.worker.own_limits import own_limits

if TYPE_CHECKING:
    from shm_monitor.schema import Limit, Schema
    from shm_monitor.segment.view import Sample, View


class LimitNumbers:
    """One limit in one sample: ``numbers["capacity"]`` and so on, by the names of ``schema.TRACK_HELP``.

    Attributes:
        limit: its row of the schema.
        numbers: the columns of its track; NaN for "never" and "unknown".
        value: the reading of this sample; mean is over the observation period, time-weighted.
        scope: whose memory it looks at (host, or a cgroup path) in this sample; empty for a limit without scopes.
        bytes_per_unit: what one of its units is in memory: 1 for bytes, a hundredth of the device for GPU memory in
            percent; NaN for what is no memory.
        swap_available_bytes: how much swap is left to it; NaN where there is none, or it is no memory.
    """

    __slots__ = ("bytes_per_unit", "limit", "mean", "numbers", "scope", "swap_available_bytes", "value")

    def __init__(
        self,
        limit: Limit,
        numbers: dict[str, float],
        value: float,
        *,
        scope: str = "",
        bytes_per_unit: float = math.nan,
        swap_available_bytes: float = math.nan,
    ) -> None:
        """Pair *numbers* with the reading that they belong to."""
        self.limit = limit
        self.numbers = numbers
        self.value, self.mean = value, numbers["mean"]
        self.scope = scope
        self.bytes_per_unit = bytes_per_unit
        self.swap_available_bytes = swap_available_bytes

    @property
    def level(self) -> Level:
        """How much this limit asks."""
        level = self.numbers["level"]
        return Level(int(level) & 3) if math.isfinite(level) else Level.OK

    @property
    def end(self) -> float:
        """Where this resource ends: its capacity, else its limit."""
        capacity = self.numbers["capacity"]
        return self.numbers["limit"] if math.isnan(capacity) else capacity

    @property
    def headroom(self) -> float:
        """What is left, in the unit of the metric; NaN where unknown."""
        return max(self.end - self.value, 0.0) if self.value == self.value else math.nan

    @property
    def headroom_ratio(self) -> float:
        """What is left, 0 to 1; of nothing, nothing."""
        return self.headroom / self.end if self.end else 0.0

    @property
    def shed_fraction(self) -> float:
        """How far the value is from the target to the end, 0 to 1."""
        target = self.numbers["target"]
        if not self.value > target or math.isnan(self.end):
            return 0.0
        return min((self.value - target) / (self.end - target), 1.0) if self.end > target else 1.0


class Headroom(NamedTuple):
    """What is left of one limit.

    Args:
        limit: the one with the smallest ratio, ``RLIMIT_AS`` or ``RLIMIT_DATA`` where that is this process's own; empty
            where no limit is known.
        ratio: 0 (nothing left) to 1; None where unknown.
        amount: the same in the unit of its metric (bytes, percent); None where unknown.
        unit: of the amount.
    """

    limit: str
    ratio: float | None
    amount: float | None
    unit: str


class _Place(NamedTuple):
    """Where the numbers of one limit stand in a sample: offsets in bytes; -1 for what there is not."""

    limit: Limit
    track: int
    value: int
    scope: int
    total_bytes: int
    swap: int


class _Limits:
    """The limits of one segment, and what its newest sample that was asked for says of them."""

    def __init__(self, view: View) -> None:
        schema, slot = view.schema, view.slot
        at = {name: slot.values + place * WORD_BYTES for name, place in schema.places.items()}
        self._columns = TrackColumns(schema.track_fields, TRACK_FIELDS)
        self._scopes = {limit.metric: _scopes_of(limit, schema) for limit in schema.limits}
        self._places = [
            _Place(
                limit,
                slot.track(index),
                at[limit.metric],
                at.get(f"{_owner_of(limit)}.scope", -1),
                at.get(f"{_owner_of(limit)}.memory_total_bytes", -1)
                if limit.metric.endswith(".memory_percent")
                else -1,
                at.get(f"{_owner_of(limit)}.swap_available_bytes", -1),
            )
            for index, limit in enumerate(schema.limits)
        ]
        self._read: tuple[Sample, list[LimitNumbers]] | None = None

    def limits(self, sample: Sample) -> list[LimitNumbers]:
        """Return all limits in *sample*, read at most once."""
        read = self._read
        if read is None or read[0].data is not sample.data:
            read = self._read = (sample, [self._numbers(place, sample.data) for place in self._places])
        return read[1]

    def _numbers(self, place: _Place, data: bytes) -> LimitNumbers:
        columns = self._columns
        return LimitNumbers(
            place.limit,
            dict(zip(columns.names, columns.values(data, place.track))),  # noqa: B905 - equally many
            _double(data, place.value),
            scope="" if place.scope < 0 else self._scope(place, data),
            bytes_per_unit=_bytes_per_unit(place, data),
            swap_available_bytes=math.nan if place.swap < 0 else _double(data, place.swap),
        )

    def _scope(self, place: _Place, data: bytes) -> str:
        scopes, scope = self._scopes[place.limit.metric], _double(data, place.scope)
        return scopes[int(scope)] if 0 <= scope < len(scopes) else ""  # a NaN is neither


def limits_in(sample: Sample, view: View, indices: tuple[int, ...]) -> list[LimitNumbers]:
    """Return the limits whose flags are *indices*; flag 0 stands for all of them. They are shared: only read them."""
    found = view.kept.get(_Limits)
    if not isinstance(found, _Limits):
        found = view.kept[_Limits] = _Limits(view)
    limits = found.limits(sample)
    return limits if 0 in indices else [limits[index - 1] for index in sorted(indices)]


def headroom(sample: Sample, view: View, indices: tuple[int, ...]) -> Headroom:
    """Return what is left in *sample* of the limits whose flags are *indices*, the smallest ratio of them.

    Beside main memory count the limits of this process alone, which the sampler does not see.
    """
    watched = limits_in(sample, view, indices)
    found = [Headroom(one.limit.name, one.headroom_ratio, one.headroom, one.limit.unit) for one in watched]
    if any(is_main_memory(one) for one in watched):
        found += [Headroom(own.name, own.left_bytes / own.limit_bytes, own.left_bytes, "bytes") for own in own_limits()]
    return min((one for one in found if one.ratio == one.ratio), key=_ratio, default=Headroom("", None, None, ""))


def is_main_memory(one: LimitNumbers) -> bool:
    """Say whether *one* limits main memory: ``memory``, or one of its scopes."""
    return one.limit.name.partition(":")[0] == "memory"


def _ratio(headroom: Headroom) -> float:
    return math.inf if headroom.ratio is None else headroom.ratio


def _owner_of(limit: Limit) -> str:
    """Return the group, and instance, that the metric of *limit* belongs to: ``memory:0``, ``gpu:0``."""
    return limit.metric.partition(".")[0]


def _scopes_of(limit: Limit, schema: Schema) -> list[str]:
    facts = schema.facts.get(_owner_of(limit).partition(":")[0], {})
    scopes = facts.get("scopes") if isinstance(facts, dict) else None
    return list(map(str, scopes)) if isinstance(scopes, list) else []


def _bytes_per_unit(place: _Place, data: bytes) -> float:
    if place.limit.unit == "bytes":
        return 1.0
    return math.nan if place.total_bytes < 0 else _double(data, place.total_bytes) / 100.0


def _double(data: bytes, offset: int) -> float:
    return _unpack_double(data, offset)[0]  # type: ignore[no-any-return]


_unpack_double = struct.Struct("<d").unpack_from
