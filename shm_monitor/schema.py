"""What is measured and what can be limited: the tables that a segment carries with it.

A segment describes itself: its schema is the JSON of the ``Metric`` and ``Limit`` rows below, so that a
reader of another build (or a person with ``strings``) knows the meaning, the unit and the source of every number.
An unknown reading is a NaN whose payload says why (``unknown``), so one column of float64 carries both.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

from shm_monitor.forks import importing
from shm_monitor.light import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


class Level(IntEnum):
    """How much is asked of a worker. ``should_prune()`` is ``level >= PRUNE``."""

    OK = 0
    WARN = 1
    PRUNE = 2
    CRITICAL = 3

    @property
    def text(self) -> str:
        """The level as every face spells it, such as ``prune``."""
        return self.name.lower()


class Unknown(IntEnum):
    """Why a reading is missing: a closed set, in the payload of its NaN."""

    ERROR = 0
    NOT_SUPPORTED = 1
    MIG = 2
    UNIFIED_MEMORY = 3
    NO_PERMISSION = 4
    GPU_LOST = 5
    NOT_YET_SAMPLED = 6
    TIMEOUT = 7
    DISABLED = 8

    @property
    def text(self) -> str:
        """The reason as snapshots spell it, such as ``not_yet_sampled``."""
        return self.name.lower()


class Reason(IntFlag):
    """Why a limit presses: bits 34-49 of a flag. Each latches by itself; ``UNKNOWN`` informs and presses nothing."""

    LEVEL = 1
    FORECAST = 2
    CAPACITY = 4
    EVENT = 8
    UNKNOWN = 16


REASON_NAMES = {int(reason): str(reason.name).lower() for reason in Reason}
PRESSING = tuple(name for bit, name in REASON_NAMES.items() if bit != Reason.UNKNOWN)  # by bit, from the lowest on


def names_of_bits(bits: int, names: Mapping[int, str]) -> tuple[str, ...]:
    """Return the *names* of what is set in *bits*, lowest first; one without a name is ``bit_N``: seen, not dropped."""
    return tuple(names.get(1 << place, f"bit_{place}") for place in range(bits.bit_length()) if bits >> place & 1)


# What the decision remembers of each limit, in the order of its columns in a sample. Times are seconds of the monotonic
# clock; NaN is "never" or "unknown". The numbers of a reason stay as they were when it was last set.
TRACK_HELP = {
    "level": "0 OK, 1 WARN, 2 PRUNE, 3 CRITICAL",
    "reasons": "bits of Reason that are set now",
    "limit": "the limit now, in the unit of the metric; NaN where none is set, or it is unknown",
    "target": "the value that a whole period must stay below before LEVEL ends, now",
    "capacity": "what there is at all, now; NaN for what slows down rather than runs out",
    "seconds_to_limit": "until the capacity is used up, by a line through the newest readings; NaN where none leads "
    "there, and below the target also where it ends later than in ten horizons of the forecast",
    "mean": "the time-weighted mean over the period: each reading counts for the seconds since the one before",
    "maximum": "the highest reading of the period",
    "known_since_seconds": "first reading after the last hole of more than a period",
    "known_until_seconds": "newest reading",
    "reclaim_events_count": "the counter of reclaim events at its last reading",
    "oom_events_count": "the counter of OOM events at its last reading",
    "oom_seen_seconds": "when the counter of OOM events last rose",
    "pressed_since_seconds": "when the level last came to PRUNE or above, or a reason was set again after the value "
    "was a fifth below the target",
    "episodes_count": "how often that happened",
} | {
    f"{reason}_{field}": text
    for reason in PRESSING
    for field, text in {
        "since_seconds": "when the reason was last set",
        "seen_seconds": "when its condition last held",
        "value": "the value when it was set",
        "mean": "the time-weighted mean over the period when it was set",
        "limit": "the limit when it was set",
        "capacity": "the capacity when it was set",
        "seconds_to_limit": "the seconds to the capacity when it was set",
        "episodes_count": "how often it was set",
    }.items()
}
TRACK_FIELDS = tuple(TRACK_HELP)


_QUIET_NAN_BITS = 0x7FF8_0000_0000_0000
_FLOAT = struct.Struct("<d")
_WORD = struct.Struct("<Q")


def unknown(why: Unknown) -> float:
    """Return the NaN that stands for a missing reading and carries *why* in its payload.

    Copies keep the payload, arithmetic need not: write it last, compute nothing with it.
    Source: IEEE 754-2019, 6.2.1 (payload of a quiet NaN).
    """
    return float(_FLOAT.unpack(_WORD.pack(_QUIET_NAN_BITS | why))[0])


def why_unknown(value: float) -> Unknown:
    """Return the reason that ``unknown`` put into *value*; a NaN of any other origin is an ``ERROR``."""
    payload = _WORD.unpack(_FLOAT.pack(value))[0] & 0xFF
    try:
        return Unknown(payload)
    except ValueError:
        return Unknown.ERROR


class Metric(NamedTuple):
    """One number of a sample.

    Args:
        group: cpu, memory, stall, network, disk, gpu, workers or sampler.
        field: the name within the group; the unit ends it (``usage_bytes``).
        unit: percent, bytes, bytes_per_second, seconds, celsius, watts, count ...
        help: one sentence for people.
        source: the file, call or manual that defines it.
        instance: which one, where a group has several (``eth0``, ``core3``, ``0``); else empty.
        integer: true where fractions make no sense (bytes, counts), so that snapshots show an int.
        rolled: true where mean, maximum and slope over the observation period are kept too.
    """

    group: str
    field: str
    unit: str
    help: str
    source: str
    instance: str = ""
    integer: bool = False
    rolled: bool = False

    @property
    def name(self) -> str:
        """The name in flat tables: ``memory.usage_bytes``, ``gpu:0.utilization_percent``."""
        return f"{self.group}:{self.instance}.{self.field}" if self.instance else f"{self.group}.{self.field}"


class Limit(NamedTuple):
    """One limit that the sampler decides on; its flag is the word after those of the limits before it.

    Args:
        name: what a worker watches: memory, cpu, network, ``gpu:0``, ``gpu-memory:0``.
        metric: the rolled metric it looks at.
        unit: the unit of the metric.
        device: the UUID of the device, else empty.
    """

    name: str
    metric: str
    unit: str
    device: str = ""


class Schema(NamedTuple):
    """Everything that a segment says about itself.

    Args:
        metrics: in the order of the values of a sample; the rolled ones come first.
        limits: in the order of their flags.
        collectors: names, in the order of their words in the segment's hot page.
        facts: what does not change while the segment lives (device names, scopes), by collector.
        track_fields: the names of the numbers that each limit's track has in a slot.
    """

    metrics: tuple[Metric, ...]
    limits: tuple[Limit, ...]
    collectors: tuple[str, ...]
    facts: dict[str, Any]
    track_fields: tuple[str, ...] = ()

    @property
    def rolled_count(self) -> int:
        """How many metrics, from the first on, have rolling statistics."""
        return sum(metric.rolled for metric in self.metrics)

    @property
    def places(self) -> dict[str, int]:
        """Where each metric is in a sample, by its name; made anew each time."""
        return places_of(self.metrics)

    def to_json(self) -> bytes:
        """Return the bytes that go into the segment; equal schemas give equal bytes."""
        with importing:
            import json  # a worker that only asks should_prune() never needs it
            import re

        table = {
            "metrics": [metric._asdict() for metric in self.metrics],
            "limits": [limit._asdict() for limit in self.limits],
            "collectors": self.collectors,
            "facts": self.facts,
            "track_fields": self.track_fields,
        }
        text = json.dumps(table, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        # The kernel names interfaces, devices and cgroups in any bytes; those that are no UTF-8 are surrogates here,
        # which no other encoder takes. In JSON a backslash is two.
        return re.sub("[\udc80-\udcff]", lambda one: f"\\\\x{ord(one[0]) - 0xDC00:02x}", text).encode(errors="replace")

    @classmethod
    def from_json(cls, data: bytes) -> Schema:
        """Return the schema that ``to_json`` wrote.

        Raises:
            ValueError: the bytes are no schema (the caller knows the segment's name and says so).
        """
        with importing:
            import json

        try:
            table = json.loads(data)
            schema = cls(
                tuple(Metric(**row) for row in table["metrics"]),
                tuple(Limit(**row) for row in table["limits"]),
                tuple(str(name) for name in table["collectors"]),
                dict(table["facts"]),
                tuple(str(name) for name in table["track_fields"]),
            )
        except (TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"not a schema: {error}") from error
        schema._check()
        return schema

    def _check(self) -> None:
        """Raise ValueError unless every field has its type, and every limit looks at a rolled metric."""
        tables = [one._asdict() for one in self.metrics] + [one._asdict() for one in self.limits]
        wrong = [
            key
            for table in tables
            for key, value in table.items()
            if not isinstance(value, bool if key in {"integer", "rolled"} else str)
        ]
        if wrong:
            raise ValueError(f"not a schema: {wrong[0]} is of another type")
        if not all(isinstance(facts, dict) for facts in self.facts.values()):
            raise ValueError("not a schema: facts that are no table")
        if len(set(self.track_fields)) != len(self.track_fields):
            raise ValueError("not a schema: a field of a track occurs twice")
        rolled = self.metrics[: self.rolled_count]
        if not all(metric.rolled for metric in rolled):
            raise ValueError("not a schema: the rolled metrics do not come first")
        names = {metric.name for metric in rolled}
        strays = [limit.name for limit in self.limits if limit.metric not in names]
        if strays:
            raise ValueError(f"not a schema: the limit {strays[0]} looks at no rolled metric")


def places_of(metrics: Sequence[Metric]) -> dict[str, int]:
    """Return where each of *metrics* is among them, by its name."""
    return {metric.name: place for place, metric in enumerate(metrics)}


def ordered(metrics: list[Metric]) -> list[int]:
    """Return the indices of *metrics* with the rolled ones first, otherwise in the order given."""
    return sorted(range(len(metrics)), key=lambda index: not metrics[index].rolled)
