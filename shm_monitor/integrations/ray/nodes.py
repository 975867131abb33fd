"""One sampler per node: a named, detached actor that is pinned to its node and owns a ``ResourceManager``.

It dies with its node, and its sampler with it; Ray starts an actor that died alone again, on the same node only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from shm_monitor.errors import MonitorError
from shm_monitor.integrations.ray.installed import ray
from shm_monitor.worker.attaching import attach

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shm_monitor.integrations.ray.verdicts import NodeVerdict
    from shm_monitor.worker.reader import Reader

_log = logging.getLogger("shm_monitor")

NAMESPACE = "shm-monitor"
START_SECONDS = 60.0  # a worker process of Ray and a sampler, on a busy machine
GAUGE_SECONDS = 1.0
_ID_LENGTH = 16  # hexadecimal digits of a node's id: a name stays short, and two nodes do not share one


class NodeSampler:
    """The actor. It owns the sampler of its node; made by ``start_samplers``."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Run a sampler with *settings* of ``ResourceConfig`` under the name of this node."""
        from shm_monitor.config.resource import ResourceConfig
        from shm_monitor.integrations.ray.gauges import Gauges
        from shm_monitor.manager import ResourceManager

        self._node = this_node()
        self._manager = ResourceManager(ResourceConfig.load(name=sampler_name(self._node), **settings))
        self._gauges = Gauges(self._node)
        self._ended = threading.Event()
        threading.Thread(target=self._report, name="shm-monitor-gauges", daemon=True).start()

    def verdict(self) -> NodeVerdict:
        """Return what the sampler of this node says."""
        from shm_monitor.integrations.ray.verdicts import verdict_of

        return verdict_of(self._manager.reader, self._node)

    def pid(self) -> int:
        """Return the process of the actor, which owns the sampler."""
        return os.getpid()

    def name(self) -> str:
        """Return the name of the sampler, for ``shm-monitor status`` on the node itself."""
        return self._manager.name

    def close(self) -> None:
        """End the sampler."""
        self._ended.set()
        self._manager.close()

    def _report(self) -> None:
        while not self._ended.wait(GAUGE_SECONDS):
            with contextlib.suppress(MonitorError):
                self._gauges.set(self.verdict(), self._manager.reader.snapshot())


def start_samplers(nodes: Iterable[str] | None = None, **settings: Any) -> list[str]:
    """Have a sampler on every node, and return the ids of the nodes that have one.

    Call it again after nodes have joined: where one runs it is left as it is.

    Args:
        nodes: ids of nodes; None is all that are alive.
        settings: of ``shm_monitor.ResourceConfig``, for samplers that are started now.
    """
    asked = {node: _actor(node, settings) for node in (alive_nodes() if nodes is None else nodes)}
    named = {actor.name.remote(): node for node, actor in asked.items()}
    ready, late = ray.wait(list(named), num_returns=len(named), timeout=START_SECONDS) if named else ([], [])
    for reference in late:
        _log.warning("node %s has no sampler after %g s", named[reference], START_SECONDS)
    return [named[reference] for reference in ready if _has_started(named[reference], reference)]


def stop_samplers() -> None:
    """End the samplers of all nodes, and their actors."""
    for node in alive_nodes():
        actor = handle(node)
        if actor is None:
            continue
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(actor.close.remote(), timeout=START_SECONDS)
        ray.kill(actor)


def node_reader(**options: Any) -> Reader:
    """Return a reader of the sampler of the node that this runs on; options of ``shm_monitor.attach``.

    Without a sampler it answers as ``attach(required=False)`` does. For tasks, actors and loops of Ray Train.
    """
    return attach(sampler_name(this_node()), **{"timeout": 0.0, "required": False, **options})


def this_node() -> str:
    """Return the id of the node that this runs on."""
    node: str = ray.get_runtime_context().get_node_id()
    return node


def alive_nodes() -> list[str]:
    """Return the ids of the nodes that Ray takes for alive."""
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def actor_name(node: str) -> str:
    """Return the name of the actor on *node*, in ``NAMESPACE``."""
    return f"sampler-{node}"


def sampler_name(node: str) -> str:
    """Return the name of the sampler on *node*: two nodes on one machine have two."""
    return f"ray-{node[:_ID_LENGTH]}"


def _actor(node: str, settings: dict[str, Any]) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    options = {
        "name": actor_name(node),
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "num_cpus": 0,
        "max_restarts": -1,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node, soft=False),
    }
    return ray.remote(NodeSampler).options(**options).remote(settings)


def handle(node: str) -> Any:
    """Return the actor on *node*, or None; a round trip to Ray's control store."""
    try:
        return ray.get_actor(actor_name(node), namespace=NAMESPACE)
    except ValueError:  # how Ray says that there is no such actor
        return None


def _has_started(node: str, reference: Any) -> bool:
    try:
        ray.get(reference)
    except ray.exceptions.RayError as error:
        _log.warning("node %s has no sampler: %s", node, error)
        return False
    return True
