"""Which metric of a schema is which field of a Snapshot: worked out once per schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

import msgspec

from shm_monitor.schema import Metric, Schema, Unknown
from shm_monitor.snapshot.structs import (
    Cpu,
    Device,
    Disk,
    Float,
    Gpu,
    GpuProcess,
    Integer,
    Interface,
    Memory,
    MemoryLevel,
    Mount,
    Network,
    Sampler,
    Stall,
    Worker,
    Workers,
)

Row = tuple[int, ...]
"""Indices of metrics, one per numeric field of a Struct."""

LACKING = -1
"""The index of a metric that the schema does not have."""

_GROUPS: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("cpu", Cpu),
    ("memory", Memory),
    ("stall", Stall),
    ("network", Network),
    ("disk", Disk),
    ("workers", Workers),
    ("sampler", Sampler),
)


class GpuPlan(NamedTuple):
    """One GPU: what does not change (in the order of the Struct), and where its readings are."""

    constants: tuple[str, int | None, str, str, str, bool]
    row: Row
    throttle_reasons: int
    processes: tuple[Row, ...]


class Plan:
    """Where the number of each field stands in a sample.

    Attributes:
        metrics: those of the schema.
        rolled: the names of those with statistics.
        rows: of the groups that there is one of, by name.
        scope, scopes: the metric that says which memory scope counts, and the names of the scopes.
        levels, level_scopes: of memory, by instance: its row, and the metric that says which scope it is.
        cores, interfaces, devices, mounts: by instance.
        gpus: in the order of the GPU collector.
        workers: the rows of the process table.
        other: the metrics that no field knows, by name.
        lacking: why the fields that the schema has no metric for are unknown, by metric name.
    """

    def __init__(self, schema: Schema) -> None:
        """Assign every metric of *schema*."""
        self.metrics = schema.metrics
        self.rolled = tuple(metric.name for metric in schema.metrics[: schema.rolled_count])
        self._index = {(metric.group, metric.instance, metric.field): at for at, metric in enumerate(schema.metrics)}
        self._used: set[int] = set()
        self.lacking: dict[str, str] = {}
        self.rows = {group: self._row(group, "", _numbers(struct)) for group, struct in _GROUPS}
        self.scope = self._take("memory", "", "scope")
        self.scopes = _texts(_fact(schema, "memory", "scopes"))
        self.levels = {name: self._row("memory", name, _numbers(MemoryLevel)) for name in self._instances("memory")}
        self.level_scopes = {name: self._take("memory", name, "scope") for name in self.levels}
        self.cores = {core: self._take("cpu", core, "core_percent") for core in self._instances("cpu")}
        self.interfaces = {name: self._row("network", name, _numbers(Interface)) for name in self._instances("network")}
        self.devices = {name: self._row("disk", name, _numbers(Device)) for name in self._instances("disk")}
        self.mounts = {name: self._row("mount", name, _numbers(Mount)) for name in self._instances("mount")}
        self.gpus = [self._gpu(facts) for facts in self._gpu_facts(schema)]
        self.workers = [self._table_row("workers", name, _table(Worker)) for name in self._instances("workers")]
        for name in schema.collectors:  # read from the hot page, where they are counted without waiting for a sample
            self._take("sampler", name, "errors_count")
        self.other = {metric.name: at for at, metric in enumerate(schema.metrics) if at not in self._used}
        gpu_absence = _fact(schema, "gpu", "unavailable")
        if gpu_absence and isinstance(gpu_absence, str):
            self.lacking["gpu"] = gpu_absence

    def _take(self, group: str, instance: str, field: str) -> int:
        """Return the index of a metric, marked as used; LACKING where there is none."""
        at = self._index.get((group, instance, field), LACKING)
        self._used.add(at)
        return at

    def _row(self, group: str, instance: str, fields: Iterable[str]) -> Row:
        """Return the indices of *fields*, and note those that the schema lacks."""
        fields = tuple(fields)
        row = tuple(self._take(group, instance, field) for field in fields)
        for field, at in zip(fields, row, strict=True):
            if at == LACKING:
                self.lacking[Metric(group, field, "", "", "", instance).name] = Unknown.NOT_SUPPORTED.text
        return row

    def _table_row(self, group: str, instance: str, fields: Iterable[str]) -> Row:
        """Return the indices of *fields* of one row of a process table, whose columns differ between samplers."""
        return tuple(self._take(group, instance, field) for field in fields)

    def _instances(self, group: str) -> list[str]:
        """Return the instances of *group* in the order of the schema."""
        return list(
            dict.fromkeys(metric.instance for metric in self.metrics if metric.group == group and metric.instance)
        )

    def _gpu_facts(self, schema: Schema) -> list[Mapping[str, object]]:
        """Return what is known of each GPU that has metrics, described ones first."""
        described = _fact(schema, "gpu", "devices")
        rows = [row for row in described if isinstance(row, dict)] if isinstance(described, list) else []
        facts = {str(row.get("instance", "")): row for row in rows}
        known = self._instances("gpu")
        order = [name for name in facts if name in known] + [name for name in known if name not in facts]
        return [{**facts.get(name, {}), "instance": name} for name in order]

    def _gpu(self, facts: Mapping[str, object]) -> GpuPlan:
        name, index = str(facts["instance"]), facts.get("index")
        texts = (str(facts.get(key, "")) for key in ("uuid", "name", "memory_kind"))
        constants = (name, index if isinstance(index, int) else None, *texts, bool(facts.get("mig")))
        slots = [metric.field.split("_")[1] for metric in self.metrics if _is_process_of(metric, name)]
        processes = tuple(
            self._table_row("gpu", name, [f"process_{slot}_{field}" for field in _table(GpuProcess)]) for slot in slots
        )
        row = self._row("gpu", name, _numbers(Gpu)[1:])
        return GpuPlan(constants, row, self._take("gpu", name, "throttle_reasons"), processes)  # type: ignore[arg-type]


def _is_process_of(metric: Metric, gpu: str) -> bool:
    """Say whether *metric* is the pid of a row of the process table of *gpu*."""
    start, end = metric.field.startswith("process_"), metric.field.endswith("_pid")
    return (metric.group, metric.instance) == ("gpu", gpu) and start and end


@cache
def _numbers(struct: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the numeric fields of *struct*, in its order."""
    return tuple(field.name for field in msgspec.structs.fields(struct) if field.type in {Integer, Float})


def _table(struct: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the fields of *struct*, one row of a process table: all are numbers, the pid is the first."""
    return struct.__struct_fields__


def _fact(schema: Schema, collector: str, key: str) -> object:
    """Return one fact of a collector, or None."""
    facts = schema.facts.get(collector)
    return facts.get(key) if isinstance(facts, dict) else None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()
