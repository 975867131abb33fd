"""Ask a sampler to take false readings for a while, to try how workers react; it must have been told to allow it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from shm_monitor.errors import ConfigError, UnknownMetricError
from shm_monitor.segment import injection, layout

if TYPE_CHECKING:
    from shm_monitor.snapshot.structs import Snapshot
    from shm_monitor.worker.reader import Reader

# What people call them, and the metric; those of a GPU go to all of them.
_SHORT = {
    "cpu_percent": "cpu.cpu_percent",
    "memory_percent": "memory.usage_percent",
    "memory_bytes": "memory.usage_bytes",
    "network_bytes_per_second": "network.usage_bytes_per_second",
    "gpu_percent": "utilization_percent",
    "gpu_memory_percent": "memory_percent",
}


def reading_of(text: str) -> tuple[str, float]:
    """Return the metric and the number of *text*, ``METRIC=NUMBER``.

    Raises:
        ConfigError: *text* is something else.
    """
    name, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not name.strip() or not math.isfinite(value):
        raise ConfigError("inject", text, "argument", "METRIC=NUMBER, such as memory_percent=97")
    return name.strip(), value


def inject(reader: Reader, asked: dict[str, float], seconds: float) -> None:
    """Have the sampler of *reader* take the readings *asked*, by metric or by short name, for *seconds*.

    Raises:
        ConfigError: the sampler does not allow it.
        UnknownMetricError: a name that it does not have.
        SegmentError: there is no sampler.
    """
    view = reader.view()
    if not view.word(layout.CAPABILITIES_OFFSET) & layout.ACCEPTS_INJECTION:
        raise ConfigError("allow_injection", "false", "the running sampler", "must be true; restart it with it set")
    known = tuple(metric.name for metric in view.schema.metrics)
    injection.write(reader.name, readings_for(asked, known, reader.snapshot()), seconds)


def readings_for(asked: dict[str, float], known: tuple[str, ...], newest: Snapshot) -> dict[str, float]:
    """Return *asked* by flat metric name; a share of the memory becomes bytes too, since bytes are what is limited.

    Raises:
        UnknownMetricError: a name that neither the sampler nor this table knows.
    """
    found: dict[str, float] = {}
    for name, number in asked.items():
        full = _SHORT.get(name, name)
        metrics = [one for one in known if one == full or (one.startswith("gpu:") and one.endswith(f".{full}"))]
        if not metrics:
            raise UnknownMetricError(name, (*_SHORT, *known))
        found.update(dict.fromkeys(metrics, number))
        capacity = newest.memory.capacity_bytes
        if full == "memory.usage_percent" and capacity is not None:
            found["memory.usage_bytes"] = number / 100 * capacity
        if full == "memory.usage_bytes" and capacity:
            found["memory.usage_percent"] = 100 * number / capacity
    if "memory.usage_bytes" in found:  # of the level that ends first, whose limit it is
        scopes = {level.scope: name for name, level in newest.memory.levels.items()}
        found[f"memory:{scopes.get(newest.memory.scope)}.usage_bytes"] = found["memory.usage_bytes"]
    return {name: number for name, number in found.items() if name in known}
