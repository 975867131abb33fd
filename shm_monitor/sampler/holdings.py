"""What present workers hold that a limit counts in bytes: memory of the machine, and of each GPU."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from shm_monitor.schema import TRACK_FIELDS, places_of
from shm_monitor.segment.flags import level_number, shed_of
from shm_monitor.segment.presence import want_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shm_monitor.decision.rules import Rule
    from shm_monitor.schema import Metric

_TARGET, _LIMIT = TRACK_FIELDS.index("target"), TRACK_FIELDS.index("limit")


class Over(NamedTuple):
    """How much usage is over its target.

    Args:
        size_bytes: usage less target; negative below it, NaN where nothing is known.
        room_bytes: between target and limit.
        place: of several levels the one that is furthest over.
    """

    size_bytes: float = math.nan
    room_bytes: float = 0.0
    place: int = 0


class Pressure(NamedTuple):
    """One sample of a holding.

    Args:
        verdict: the word of its limit.
        over: how much usage is over its target.
        held_bytes: by pid, where the sample says it; None where ``/proc`` does.
    """

    verdict: int
    over: Over
    held_bytes: Mapping[int, int] | None = None


class Holding(Protocol):
    """Something that workers hold bytes of.

    Attributes:
        limit: 1 + the place of its limit; 0 for memory, which has several.
        want: the bit of a worker that wants to be asked for it.
    """

    @property
    def limit(self) -> int: ...
    @property
    def want(self) -> int: ...

    def pressure(self, record: NDArray[np.void], words: NDArray[np.uint64]) -> Pressure: ...


class HostMemory:
    """Memory of the host and of each cgroup: the worst level counts."""

    limit, want = 0, want_of()

    def __init__(self, rules: Sequence[Rule]) -> None:
        """Look at the levels of memory among *rules*."""
        self.places = [place for place, rule in enumerate(rules) if _kind(rule) == "memory"]
        self._values = [rules[place].value for place in self.places]

    def pressure(self, record: NDArray[np.void], words: NDArray[np.uint64]) -> Pressure:
        """Return the worst verdict, and the level that is furthest over its target."""
        return Pressure(highest(words[self.places]), self._over(record))

    def _over(self, record: NDArray[np.void]) -> Over:
        limits = record["limits"][0][self.places]
        over = record["values"][0][self._values] - limits[:, _TARGET]
        if np.isnan(over).all():
            return Over()
        place = int(np.nanargmax(over))
        return Over(float(over[place]), float(limits[place, _LIMIT] - limits[place, _TARGET]), place)


class GpuMemory:
    """Memory of one GPU, whose limit is in percent; who holds it says the driver's list of processes."""

    def __init__(self, place: int, rule: Rule, places: Mapping[str, int], *, want: int) -> None:
        """Look at the limit at *place*; *places* are those of the metrics."""
        self.limit, self.want, self.place = place + 1, want, place
        self._value = rule.value
        device = f"gpu:{rule.limit.name.partition(':')[2]}"
        self._total = places.get(f"{device}.memory_total_bytes", -1)
        rows = [f"{device}.process_{row}" for row in range(len(places))]
        rows = rows[: next((row for row, name in enumerate(rows) if f"{name}_pid" not in places), 0)]
        self._pids = [places[f"{row}_pid"] for row in rows]
        self._held = [places[f"{row}_memory_bytes"] for row in rows]

    def pressure(self, record: NDArray[np.void], words: NDArray[np.uint64]) -> Pressure:
        """Return the verdict, what is over the target in bytes, and what each of the largest holds."""
        values, limits = record["values"][0], record["limits"][0][self.place]
        byte_per_percent = values[self._total] / 100 if self._total >= 0 else math.nan
        over = (values[self._value] - limits[_TARGET]) * byte_per_percent
        room = (limits[_LIMIT] - limits[_TARGET]) * byte_per_percent
        pairs = zip(values[self._pids].tolist(), values[self._held].tolist(), strict=True)
        held = {int(pid): int(size) for pid, size in pairs if not math.isnan(pid) and not math.isnan(size)}
        return Pressure(int(words[self.place]), Over(float(over), float(room)), held)


def holdings(rules: Sequence[Rule], metrics: Sequence[Metric]) -> tuple[HostMemory, *tuple[GpuMemory, ...]]:
    """Return what *rules* limit in bytes of *metrics*: memory first, then that of each GPU."""
    places = places_of(metrics)
    of_gpus = [place for place, rule in enumerate(rules) if _kind(rule) == "gpu-memory"]
    gpus = [GpuMemory(place, rules[place], places, want=want_of(number)) for number, place in enumerate(of_gpus)]
    return (HostMemory(rules), *gpus)


def highest(words: NDArray[np.uint64]) -> int:
    """Return the word of the highest level, and of the most to shed among those; 0 for none."""
    return max(map(int, words), key=lambda word: (level_number(word), shed_of(word)), default=0)


def _kind(rule: Rule) -> str:
    return rule.limit.name.partition(":")[0]
