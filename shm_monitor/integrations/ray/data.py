"""Back-pressure for Ray Data: while nodes press, operators get fewer tasks, and never none.

Ray asks every policy before each task of each operator (``can_add_input``), in its scheduling loop, so nothing here
waits: nodes are asked asynchronously, and what they answered last counts. An operator without a running task always
gets one: what is downstream must run so that what is upstream may go on, and Ray's own way out opens only once
nothing runs at all. Source: Ray 2.60, ``ray/data/_internal/execution/backpressure_policy``; an internal interface,
whose signature has changed between versions.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from shm_monitor.errors import MissingDependencyError
from shm_monitor.integrations.ray.nodes import alive_nodes, handle
from shm_monitor.integrations.ray.verdicts import ClusterVerdict, answered, ask, collect

try:
    from ray.data import DataContext
    from ray.data._internal.execution import backpressure_policy
except ModuleNotFoundError as error:
    raise MissingDependencyError("shm_monitor.integrations.ray", "ray", "ray[data]") from error

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("shm_monitor")

ASK_SECONDS = 0.25
LATE_SECONDS = 5.0  # a node that is pressed may take its time to answer
FIND_SECONDS = 5.0  # new nodes are found so often: a round trip for each
POLICIES = backpressure_policy.ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY


class Nodes:
    """What the nodes answered last. Called in a scheduling loop, so it waits for nobody."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Ask at the first call."""
        self._clock = clock
        self._actors: dict[str, Any] = {}
        self._asked: dict[str, Any] = {}
        self._asked_at = self._found_at = float("-inf")
        self._latest = ClusterVerdict({})

    def __call__(self) -> ClusterVerdict:
        """Return what the nodes answered last; a node that is busy keeps its verdict for LATE_SECONDS."""
        now = self._clock()
        if now - self._asked_at >= ASK_SECONDS:
            if now - self._asked_at < LATE_SECONDS and len(answered(self._asked, 0.0)) < len(self._asked):
                return self._latest
            self._latest = collect(self._asked, 0.0)
            self._find(now)
            self._asked, self._asked_at = ask(self._actors), now
        return self._latest

    def _find(self, now: float) -> None:
        """Look for nodes and samplers that have come since, and forget those that are gone."""
        if now - self._found_at >= FIND_SECONDS:
            self._found_at = now
            found = {node: self._actors.get(node) or handle(node) for node in alive_nodes()}
            self._actors = {node: actor for node, actor in found.items() if actor is not None}


class PressureBackpressurePolicy(backpressure_policy.BackpressurePolicy):
    """While nodes press, an operator runs no more tasks than what ran when it began times what the nodes can keep.

    With half of the nodes at CRITICAL that is half of the tasks; with all of them it is one per operator.
    """

    def __init__(self, data_context: Any, topology: Any, resource_manager: Any, *, nodes: Any = None) -> None:
        """As Ray makes it; *nodes* returns a ``ClusterVerdict``, by default of the nodes' actors."""
        super().__init__(data_context, topology, resource_manager)
        self._verdict: Callable[[], ClusterVerdict] = Nodes() if nodes is None else nodes
        self._before: dict[Any, int] = {}  # running tasks by operator when the episode began

    @property
    def name(self) -> str:
        """The name in Ray's progress bars."""
        return "ShmMonitorPressure"

    def can_add_input(self, op: Any) -> bool:
        """Return whether *op* may have one more task."""
        running = int(op.num_active_tasks())
        verdict = self._verdict()
        if not verdict.should_prune:
            self._before.clear()
            return True
        if not self._before:
            _tell(verdict)
        before = self._before.setdefault(op, max(running, 1))
        return running < max(int(before * verdict.room), 1)


def enable(data_context: Any = None) -> None:
    """Append the policy to those of *data_context*, else of the current one; datasets made afterwards obey it."""
    context = DataContext.get_current() if data_context is None else data_context
    policies = list(context.get_config(POLICIES, backpressure_policy.ENABLED_BACKPRESSURE_POLICIES))
    if PressureBackpressurePolicy not in policies:
        context.set_config(POLICIES, [*policies, PressureBackpressurePolicy])


def _tell(verdict: ClusterVerdict) -> None:
    node = verdict.nodes[verdict.pressed[0]]
    _log.warning(
        "Ray Data runs fewer tasks: %d of %d nodes press; %s", len(verdict.pressed), len(verdict.nodes), node.reason
    )
