"""Gauges of each node in Ray's own metrics, which its agents export to Prometheus as ``ray_shm_monitor_...``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray.util import metrics

if TYPE_CHECKING:
    from shm_monitor.integrations.ray.verdicts import NodeVerdict
    from shm_monitor.snapshot.structs import Snapshot

# Name and description; what is not known is not set.
GAUGES = {
    "shm_monitor_level": "What the node asks: 0 ok, 1 warn, 2 prune, 3 critical.",
    "shm_monitor_live": "Whether a live sampler stands behind the level.",
    "shm_monitor_shed_fraction": "How much to shed, 0 at the target to 1 at the capacity.",
    "shm_monitor_memory_usage_bytes": "Memory of the node that cannot be reclaimed.",
    "shm_monitor_memory_capacity_bytes": "Memory that the node may use.",
    "shm_monitor_cpu_percent": "CPU use of the node over what it may use.",
}


class Gauges:
    """The gauges of one node."""

    def __init__(self, node: str) -> None:
        """Tag them with *node*, as Ray's own are tagged with NodeId."""
        self._gauges = {
            name: metrics.Gauge(name, description=text, tag_keys=("node",)) for name, text in GAUGES.items()
        }
        self._tags = {"node": node}

    def set(self, verdict: NodeVerdict, snapshot: Snapshot) -> None:
        """Set all whose value is known."""
        for name, value in values(verdict, snapshot).items():
            if value is not None:
                self._gauges[name].set(value, tags=self._tags)


def values(verdict: NodeVerdict, snapshot: Snapshot) -> dict[str, Any]:
    """Return the value of each of ``GAUGES``."""
    return {
        "shm_monitor_level": int(verdict.level),
        "shm_monitor_live": int(verdict.live),
        "shm_monitor_shed_fraction": verdict.shed_fraction,
        "shm_monitor_memory_usage_bytes": snapshot.memory.usage_bytes,
        "shm_monitor_memory_capacity_bytes": snapshot.memory.capacity_bytes,
        "shm_monitor_cpu_percent": snapshot.cpu.cpu_percent,
    }
