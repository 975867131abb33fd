"""Pressure of every node of a Ray cluster: a sampler per node, its verdict anywhere, and back-pressure for Ray Data.

    ray.init()
    start_samplers()  # one named, detached actor per node, which owns that node's sampler
    enable()  # Ray Data: pipelines brake while nodes press
    pool = sm.BoundedExecutor(RayExecutor(num_cpus=1), limit=16, reader=node_reader())  # Core, on this node

A task is not where its driver is: ``node_reader`` asks the node it is called on, in nanoseconds;
``node_verdict`` and ``cluster_verdict`` ask others, through their actors. Source: Ray 2.60.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shm_monitor.integrations.ray.executor import RayExecutor
from shm_monitor.integrations.ray.nodes import NodeSampler, node_reader, start_samplers, stop_samplers
from shm_monitor.integrations.ray.verdicts import ClusterVerdict, NodeVerdict, cluster_verdict, node_verdict

if TYPE_CHECKING:
    from shm_monitor.integrations.ray.data import PressureBackpressurePolicy, enable

__all__ = [
    "ClusterVerdict",
    "NodeSampler",
    "NodeVerdict",
    "PressureBackpressurePolicy",
    "RayExecutor",
    "cluster_verdict",
    "enable",
    "node_reader",
    "node_verdict",
    "start_samplers",
    "stop_samplers",
]


def __getattr__(name: str) -> object:
    """Load Ray Data for what needs it, not in every task that asks for a verdict."""
    if name not in ("PressureBackpressurePolicy", "enable"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from shm_monitor.integrations.ray import data

    return getattr(data, name)
