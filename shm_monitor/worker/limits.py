"""What the newest sample says of each limit, as plain numbers: for explanations, headroom and shed fractions."""

from __future__ import annotations

import math
import struct

from shm_monitor.light import TYPE_CHECKING
from shm_monitor.schema import STATE_FIELDS, Level
from shm_monitor.segment.layout import WORD_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shm_monitor.schema import Limit
    from shm_monitor.segment.view import Sample, View

_NOTHING = dict.fromkeys(STATE_FIELDS, math.nan)  # a sampler of another version may keep fewer columns
REASONS = ("level", "forecast", "capacity", "event")  # the columns of a state are named after them


class LimitNumbers:
    """One limit in one sample: ``numbers["capacity"]`` and so on, by the names of :data:`schema.STATE_HELP`.

    Attributes:
        limit: its row of the schema.
        numbers: the columns of its state; NaN for "never" and "unknown".
        value: the reading of this sample; mean is over the observation period.
    """

    def __init__(self, limit: Limit, numbers: dict[str, float], value: float, mean: float) -> None:
        """Pair *numbers* with the readings they belong to."""
        self.limit = limit
        self.numbers = numbers
        self.value = value
        self.mean = mean

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
        if math.isnan(self.value + target + self.end):
            return 0.0
        return min(max((self.value - target) / (self.end - target), 0.0), 1.0) if self.end > target else 1.0


def limits_in(sample: Sample, view: View, indices: tuple[int, ...]) -> Iterator[LimitNumbers]:
    """Yield the limits whose flags are *indices*; flag 0 stands for all of them."""
    schema, slot = view.schema, view.slot
    places = {metric.name: place for place, metric in enumerate(schema.metrics)}
    row = struct.Struct(f"<{len(schema.states)}d")
    for index, limit in enumerate(schema.limits):
        if 0 in indices or index + 1 in indices:
            numbers = row.unpack_from(sample.data, slot.limits + index * row.size)
            place = places[limit.metric]
            value = _double(sample.data, slot.values + place * WORD_BYTES)
            mean = _double(sample.data, slot.means + place * WORD_BYTES)
            yield LimitNumbers(limit, _NOTHING | dict(zip(schema.states, numbers, strict=True)), value, mean)


def _double(data: bytes, offset: int) -> float:
    return float(struct.unpack_from("<d", data, offset)[0])
