"""From the bytes of a slot to a Snapshot: each metric fills the field that has its name."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from shm_monitor.schema import Level, Metric, Schema, Unknown, why_unknown
from shm_monitor.segment.flags import LEVEL_SHIFT
from shm_monitor.segment.layout import SlotLayout
from shm_monitor.snapshot import structs
from shm_monitor.snapshot.limits import LEVEL_TEXTS, LimitReader
from shm_monitor.snapshot.throttle import throttle_names

if TYPE_CHECKING:
    from shm_monitor.segment.view import Sample

Cell = float | int | None
"""A number as a Snapshot holds it; None where it is unknown."""

Rows = Mapping[str, Mapping[str, Any]]
"""The cells of several Structs, by the names of their fields."""

_Struct = TypeVar("_Struct")

_ONCE = (structs.Cpu, structs.Memory, structs.Stall, structs.Network, structs.Disk, structs.Workers, structs.Sampler)
_GROUPS: dict[str, type[msgspec.Struct]] = {kind.__name__.lower(): kind for kind in _ONCE}
_INSTANCES: dict[str, type[msgspec.Struct]] = {
    "cpu": structs.Cpu,  # of which a core has core_percent alone
    "memory": structs.MemoryLevel,
    "network": structs.Interface,
    "disk": structs.Device,
    "mount": structs.Mount,
    "gpu": structs.Gpu,
    "workers": structs.Worker,
    "sampler": structs.CollectorState,
}
_WHOLE = ("memory", "network", "disk", "mount", "gpu")  # an instance has every field; tables differ between samplers
_TRANSLATED = {"scope", "throttle_reasons", "core_percent", "pid", "errors_count"}  # metrics that are no plain reading
_PROCESS = re.compile(r"process_(\d+)_(\w+)")
_LARGE = 2.0**62  # no integer beyond it fits into MessagePack


class Decoder:
    """Makes Snapshots of the samples of one schema. Safe from any number of threads: it keeps nothing of a sample."""

    def __init__(self, schema: Schema) -> None:
        """Assign every metric of *schema* to its field; about 1 ms."""
        self._schema = schema
        self._rolled = tuple(metric.name for metric in schema.metrics[: schema.rolled_count])
        self._integer = [metric.integer for metric in schema.metrics] + [False] * (3 * schema.rolled_count)
        self._places: dict[str, dict[str, int]] = {group: {} for group in _GROUPS}
        self._instances: dict[str, dict[str, dict[str, int]]] = {group: {} for group in _INSTANCES}
        self._other: dict[str, int] = {}
        for at, metric in enumerate(schema.metrics):
            self._assign(at, metric)
        self._lacking = self._lacking_fields()
        self._gpus = self._gpu_constants()
        scopes = _fact(schema, "memory", "scopes")
        self._scopes = tuple(map(str, scopes)) if isinstance(scopes, list | tuple) else ()
        slot, places = SlotLayout.of(schema), schema.places
        self._numbers, self._offset = struct.Struct(f"<{len(self._integer)}d"), slot.values
        self._limits = [
            (LimitReader(limit, schema.track_fields, slot.track(at)), places.get(limit.metric))
            for at, limit in enumerate(schema.limits)
        ]

    def _assign(self, at: int, metric: Metric) -> None:
        """Note which field metric *at* fills; without one, it is among the others."""
        group, instance, field = metric.group, metric.instance, metric.field
        process = _PROCESS.fullmatch(field) if group == "gpu" else None
        if process:
            group, instance, field = f"gpu:{instance}", process[1], process[2]
        kind = structs.GpuProcess if process else (_INSTANCES if instance else _GROUPS).get(group)
        if kind and field in (*_readings(kind), *_TRANSLATED.intersection(kind.__struct_fields__)):
            row = self._instances.setdefault(group, {}).setdefault(instance, {}) if instance else self._places[group]
            row[field] = at
        else:
            self._other[metric.name] = at

    def _lacking_fields(self) -> dict[str, str]:
        """Return why the fields that no metric fills are unknown, by the name that their metric would have."""
        rows = [(group, "", _GROUPS[group]) for group in _GROUPS]
        rows += [(group, name, _INSTANCES[group]) for group in _WHOLE for name in self._instances[group]]
        names = [Metric(group, field, "", "", "", at).name for group, at, kind in rows for field in _readings(kind)]
        there, without_gpu = self._schema.places, _fact(self._schema, "gpu", "unavailable")
        gpu = {"gpu": without_gpu} if without_gpu and isinstance(without_gpu, str) else {}
        return {name: Unknown.NOT_SUPPORTED.text for name in names if name not in there} | gpu

    def _gpu_constants(self) -> dict[str, dict[str, Any]]:
        """Return what does not change of each GPU that has metrics, in the order of the GPU collector."""
        described = _fact(self._schema, "gpu", "devices")
        rows = [row for row in described if isinstance(row, dict)] if isinstance(described, list) else []
        facts = {str(row.get("instance", "")): row for row in rows}
        known = self._instances["gpu"]
        found: dict[str, dict[str, Any]] = {}
        for instance in (name for name in facts | known if name in known):
            row = facts.get(instance, {})
            index = row.get("index")
            found[instance] = {key: str(row.get(key, "")) for key in ("uuid", "name", "memory_kind")}
            found[instance] |= {"index": index if isinstance(index, int) else None, "mig": bool(row.get("mig"))}
        return found

    def snapshot(
        self,
        sample: Sample,
        *,
        name: str,
        now_ns: int,
        interval_ns: int,
        stale: bool,
        collectors: Sequence[int],
        injected: tuple[str, ...] = (),
        present: Sequence[structs.Present] = (),
    ) -> structs.Snapshot:
        """Return *sample* as plain data. Cost: 60 us for 72 metrics, 80 us for 110 (bench/bench_snapshot.py).

        Args:
            sample: of a segment with this schema.
            name: of the sampler.
            now_ns: the monotonic clock.
            interval_ns: between two samples.
            stale: true when no live sampler stands behind it.
            collectors: two words of the hot page for each collector: its last success (monotonic ns, 0 for never)
                and its errors.
            injected: names of the metrics whose readings are false on purpose.
            present: the workers that have presented themselves.
        """
        numbers = self._numbers.unpack_from(sample.data, self._offset)
        cells = list(map(_cell, numbers, self._integer))
        level = sample.verdict >> LEVEL_SHIFT & 3
        sampled_at = sample.realtime_ns * 1e-9
        return structs.Snapshot(
            name=name,
            sequence=sample.number,
            epoch=sample.epoch,
            sampled_at=sampled_at,
            age_seconds=max(now_ns - sample.mono_ns, 0) * 1e-9,
            interval_seconds=interval_ns * 1e-9,
            stale=stale,
            degraded=sample.degraded,
            level=LEVEL_TEXTS[level],
            should_prune=level >= Level.PRUNE,
            injected=injected,
            **self._groups(cells, collectors, now_ns),
            limits=self._limit_states(sample.data, cells, sampled_at - sample.mono_ns * 1e-9),
            rolled=self._statistics(cells),
            other={name: cells[at] for name, at in self._other.items()},
            unavailable=self._unavailable(numbers, cells),
            present=list(present),
        )

    def _groups(self, cells: Sequence[Cell], words: Sequence[int], now_ns: int) -> dict[str, Any]:
        """Return the groups of a Snapshot, by the name of their field."""
        own = {group: _row(cells, row) for group, row in self._places.items()}
        each = {group: {at: _row(cells, row) for at, row in rows.items()} for group, rows in self._instances.items()}
        for row in (own["memory"], *each["memory"].values()):
            row["scope"] = self._scope(row.get("scope"))
        return {
            "cpu": structs.Cpu(**own["cpu"], core_percent={at: row["core_percent"] for at, row in each["cpu"].items()}),
            "memory": structs.Memory(**own["memory"], levels=_by_name(structs.MemoryLevel, each["memory"])),
            "stall": structs.Stall(**own["stall"]),
            "network": structs.Network(**own["network"], interfaces=_by_name(structs.Interface, each["network"])),
            "disk": structs.Disk(
                **own["disk"],
                devices=_by_name(structs.Device, each["disk"]),
                mounts=_by_name(structs.Mount, each["mount"]),
            ),
            "gpus": [self._gpu(name, each["gpu"][name], each.get(f"gpu:{name}", {})) for name in self._gpus],
            "workers": structs.Workers(**own["workers"], processes=_table(structs.Worker, each["workers"])),
            "sampler": structs.Sampler(**own["sampler"], collectors=self._states(words, now_ns, each["sampler"])),
        }

    def _gpu(self, instance: str, row: dict[str, Any], processes: Rows) -> structs.Gpu:
        bits = row.pop("throttle_reasons", None)
        throttle = None if bits is None else throttle_names(max(int(bits), 0))
        table = _table(structs.GpuProcess, processes)
        return structs.Gpu(instance, **self._gpus[instance], **row, throttle_reasons=throttle, processes=table)

    def _scope(self, index: Cell) -> str | None:
        return self._scopes[int(index)] if index is not None and 0 <= index < len(self._scopes) else None

    def _states(self, words: Sequence[int], now_ns: int, rows: Rows) -> dict[str, structs.CollectorState]:
        """Return how each collector is doing; a success after *now_ns* was just now."""
        seconds = {name: row.get("duration_seconds") for name, row in rows.items()}
        return {
            name: structs.CollectorState(max(now_ns - at, 0) * 1e-9 if at else None, errors, seconds.get(name))
            for name, at, errors in zip(self._schema.collectors, words[::2], words[1::2], strict=True)
        }

    def _limit_states(self, slot: bytes, cells: Sequence[Cell], epoch_seconds: float) -> list[structs.LimitState]:
        """Return the limits that are set; *epoch_seconds* turns the monotonic clock into unix seconds."""
        states = (limit.read(slot, None if at is None else cells[at], epoch_seconds) for limit, at in self._limits)
        return [state for state in states if state is not None]

    def _statistics(self, cells: Sequence[Cell]) -> dict[str, structs.Rolled]:
        """Return mean, maximum and slope over the observation period, by metric name."""
        first, count = len(self._schema.metrics), len(self._rolled)
        columns = (cells[first + at * count : first + (at + 1) * count] for at in range(3))
        return dict(zip(self._rolled, map(structs.Rolled, *columns), strict=True))

    def _unavailable(self, numbers: Sequence[float], cells: Sequence[Cell]) -> dict[str, str]:
        """Return why each unknown reading is unknown; the empty rows of process tables are absent."""
        tables = [self._instances["workers"], *(self._instances.get(f"gpu:{name}", {}) for name in self._gpus)]
        rows = [row for table in tables for row in table.values() if "pid" in row]
        empty = {at for row in rows if cells[row["pid"]] is None for at in row.values()}
        reasons = {
            metric.name: why_unknown(numbers[at]).text
            for at, metric in enumerate(self._schema.metrics)
            if cells[at] is None and at not in empty
        }
        return reasons | self._lacking


@cache
def _readings(kind: type[msgspec.Struct]) -> list[str]:
    """Return the fields of *kind* that are numbers of a sample, in its order; the index of a GPU is a constant."""
    fields = msgspec.structs.fields(kind)
    return [field.name for field in fields if field.type in {structs.Integer, structs.Float} and field.name != "index"]


def _cell(value: float, whole: bool) -> Cell:
    """Return *value* as an int where it is *whole*; None where it is a NaN, an infinity, or too large."""
    if value - value != 0 or (whole and not -_LARGE < value < _LARGE):
        return None
    return int(value) if whole else value


def _row(cells: Sequence[Cell], places: Mapping[str, int]) -> dict[str, Any]:
    return {field: cells[at] for field, at in places.items()}


def _by_name(kind: Callable[..., _Struct], rows: Rows) -> dict[str, _Struct]:
    return {name: kind(**row) for name, row in rows.items()}


def _table(kind: Callable[..., _Struct], rows: Rows) -> list[_Struct]:
    """Return the rows of a process table that have a pid."""
    return [kind(**row) for row in rows.values() if row.get("pid") is not None]


def _fact(schema: Schema, collector: str, key: str) -> object:
    """Return one fact of a collector, or None."""
    facts = schema.facts.get(collector)
    return facts.get(key) if isinstance(facts, dict) else None
