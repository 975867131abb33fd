"""Which limits there are: the configuration against what is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from shm_monitor.schema import Limit, Metric, places_of

_NO_DEVICES: Mapping[str, str] = MappingProxyType({})
MEBIBYTE = 1 << 20  # what the configuration calls an MB
HOST = "host"  # the outermost level of memory; the others are numbered from our own cgroup on
_HOST_DEPTH = 1e9


class LimitConfig(Protocol):
    """The settings that make limits; ``shm_monitor.config.resource.ResourceConfig`` has them."""

    @property
    def enabled(self) -> bool: ...
    @property
    def target_utilization(self) -> float: ...
    @property
    def max_memory_usage_mb(self) -> float | None: ...
    @property
    def max_cpu_usage_percent(self) -> float | None: ...
    @property
    def max_gpu_usage_percent(self) -> float | None: ...
    @property
    def max_gpu_memory_percent(self) -> float | None: ...
    @property
    def max_network_usage_bytes_per_second(self) -> float | None: ...


class Rule(NamedTuple):
    """One limit and where its numbers are among the values of a sample; -1 is nowhere.

    Args:
        limit: its name, metric, unit and device.
        value: the rolled metric that it looks at.
        ceiling: the configured limit, in the unit of the metric; NaN is 90 % of the capacity.
        target: the share of the limit that pressure must fall below; NaN switches the limit off: it can be watched
            and presses nothing.
        capacity: the metric that says what there is; it is read from each sample, since it can change.
        capacity_constant: what there is, where that never changes; NaN for what slows down rather than runs out.
        reclaims: the counter of reclaim events.
        ooms: the counter of OOM events.
        stall: the share of the time in which some task waited for memory, percent.
        depth: of a level of memory, how far out it is; the limit that is configured counts for the innermost level that
            has a capacity, the others have 90 % of theirs. NaN for what has no levels.
        urgent: true where samples between two turns read it, too.
    """

    limit: Limit
    value: int
    ceiling: float
    target: float
    capacity: int = -1
    capacity_constant: float = math.nan
    reclaims: int = -1
    ooms: int = -1
    stall: int = -1
    depth: float = math.nan
    urgent: bool = False


def rules(
    config: LimitConfig, metrics: Sequence[Metric], *, devices: Mapping[str, str] = _NO_DEVICES
) -> tuple[Rule, ...]:
    """Return the limits in the order of their flags: memory, cpu, network, each GPU, the memory of each GPU.

    Memory has a limit for each level: ``memory:host``, ``memory:0`` (our own cgroup), ``memory:1`` (its parent) and so
    on; where none is measured (a table of text) there is one called ``memory``.

    What is measured has its place here, switched off where no limit is configured: so a worker can watch it, and a
    limit that is configured later changes no offset of the segment. Memory always has a limit.

    Args:
        config: the settings.
        metrics: in the order of the values of a sample, the rolled ones first.
        devices: the UUID of each GPU by its instance.
    """
    target = config.target_utilization if config.enabled else math.nan
    memory_limit = math.nan if config.max_memory_usage_mb is None else config.max_memory_usage_mb * MEBIBYTE
    wanted = (  # the name of the limit, its group and field, the ceiling, the constant capacity
        ("memory", "memory", "usage_bytes", memory_limit, math.nan),
        ("cpu", "cpu", "cpu_percent", config.max_cpu_usage_percent, math.nan),
        ("network", "network", "usage_bytes_per_second", config.max_network_usage_bytes_per_second, math.nan),
        ("gpu", "gpu", "utilization_percent", config.max_gpu_usage_percent, math.nan),
        ("gpu-memory", "gpu", "memory_percent", config.max_gpu_memory_percent, 100.0),
    )
    found = []
    for name, group, field, ceiling, capacity in wanted:
        for place, metric in _looked_at(metrics, group, field):
            limit_name = f"{name}:{metric.instance}" if metric.instance else name
            limit = Limit(limit_name, metric.name, metric.unit, devices.get(metric.instance, ""))
            bounds = (math.nan, math.nan) if ceiling is None else (ceiling, target)
            rule = Rule(limit, place, *bounds, capacity_constant=capacity)
            found.append(_of_memory(rule, metric.instance, metrics) if group == "memory" else rule)
    return tuple(found)


def _looked_at(metrics: Sequence[Metric], group: str, field: str) -> list[tuple[int, Metric]]:
    """Return place and metric of each that a limit of *group* looks at.

    Of a network that is the whole and not an interface, of GPUs each one, of memory each level where there are any.
    """
    found = [(place, metric) for place, metric in enumerate(metrics) if (metric.group, metric.field) == (group, field)]
    parts = [one for one in found if one[1].instance]
    wholes = [one for one in found if not one[1].instance]
    return parts if group == "gpu" or (group == "memory" and parts) else wholes


def _of_memory(rule: Rule, level: str, metrics: Sequence[Metric]) -> Rule:
    """Return the *rule* of a *level* of memory with its capacity and its counters, where *metrics* have them."""
    places = places_of(metrics)
    group = f"memory:{level}" if level else "memory"
    return rule._replace(
        capacity=places.get(f"{group}.capacity_bytes", -1),
        reclaims=places.get(f"{group}.reclaim_events_count", -1),
        ooms=places.get(f"{group}.oom_events_count", -1),
        stall=places.get("stall.memory_some_percent", -1),
        depth=_HOST_DEPTH if level == HOST else float(level) if level.isdecimal() else math.nan,
        urgent=True,
    )
