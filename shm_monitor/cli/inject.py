"""``shm-monitor inject``: false readings for a while, to try how workers react."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from shm_monitor import exits
from shm_monitor.errors import ConfigError, UnknownMetricError
from shm_monitor.segment import injection, layout
from shm_monitor.worker.reader import attach

if TYPE_CHECKING:
    import argparse

    from shm_monitor.snapshot.structs import Snapshot

SECONDS_MAX = 24 * 3600.0

# What people call them, and the metric; those of a GPU go to all of them.
_SHORT = {
    "cpu_percent": "cpu.cpu_percent",
    "memory_percent": "memory.usage_percent",
    "memory_bytes": "memory.usage_bytes",
    "network_bytes_per_second": "network.usage_bytes_per_second",
    "gpu_percent": "utilization_percent",
    "gpu_memory_percent": "memory_percent",
}


def inject(given: argparse.Namespace) -> int:
    """Tell the sampler which readings to falsify, and for how long."""
    if given.end:
        with attach(given.name, timeout=0.0) as reader:
            injection.end(reader.name)
        return exits.FINE
    asked = dict(map(_assignment, given.readings))
    if not asked or not 0 < given.seconds <= SECONDS_MAX:
        raise ConfigError("inject", given.seconds, "argument", "METRIC=NUMBER ... --seconds 1 to 86400")
    with attach(given.name, timeout=0.0) as reader:
        view = reader.view()
        if not view.word(layout.CAPABILITIES_OFFSET) & layout.ACCEPTS_INJECTION:
            raise ConfigError("allow_injection", "false", "the running sampler", "must be true; restart it with it set")
        known = tuple(metric.name for metric in view.schema.metrics)
        injection.write(reader.name, readings_for(asked, known, reader.snapshot()), given.seconds)
    print(f"injecting for {given.seconds:g} s: {', '.join(given.readings)}", file=sys.stderr)
    return exits.FINE


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
    return {name: number for name, number in found.items() if name in known}


def _assignment(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError("inject", text, "argument", "METRIC=NUMBER, such as memory_percent=97")
    return name.strip(), value
