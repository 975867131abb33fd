"""What a node says, and what all of them say together: small, copied between nodes, no sample of anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from shm_monitor.errors import MonitorError
from shm_monitor.integrations.ray.installed import ray
from shm_monitor.integrations.ray.nodes import alive_nodes, handle, node_reader, this_node
from shm_monitor.schema import Level
from shm_monitor.segment.status import LIVE

if TYPE_CHECKING:
    from shm_monitor.worker.reader import Reader

ASK_SECONDS = 1.0


class NodeVerdict(NamedTuple):
    """What the sampler of one node says.

    Args:
        node: its id in Ray, hexadecimal.
        level: of the overall verdict; OK where no live sampler stands behind it.
        live: whether one does.
        shed_fraction: 0 at the target, 1 at the capacity.
        reason: why, one line; why nothing is known where it is not live.
    """

    node: str
    level: Level = Level.OK
    live: bool = False
    shed_fraction: float = 0.0
    reason: str = ""

    @property
    def should_prune(self) -> bool:
        """Whether that node asks to shed work."""
        return self.level >= Level.PRUNE


class ClusterVerdict(NamedTuple):
    """What all nodes say that Ray knows to be alive.

    Args:
        nodes: by node id; one whose sampler is not there or did not answer in time is not live.
    """

    nodes: dict[str, NodeVerdict]

    @property
    def level(self) -> Level:
        """The highest level of any node."""
        return max((one.level for one in self.nodes.values()), default=Level.OK)

    @property
    def should_prune(self) -> bool:
        """Whether any node asks to shed work."""
        return self.level >= Level.PRUNE

    @property
    def pressed(self) -> tuple[str, ...]:
        """The nodes that ask to shed work."""
        return tuple(node for node, one in self.nodes.items() if one.should_prune)

    @property
    def room(self) -> float:
        """The share of its work that the cluster can go on with, 0 to 1: the mean of what each node can keep."""
        return sum(map(_keeps, self.nodes.values())) / len(self.nodes) if self.nodes else 1.0


def _keeps(one: NodeVerdict) -> float:
    if one.level >= Level.CRITICAL:
        return 0.0
    return 1.0 - one.shed_fraction if one.should_prune else 1.0


def node_verdict(node: str | None = None, *, timeout: float = ASK_SECONDS) -> NodeVerdict:
    """Return what *node* says; None is the one that this runs on, which is asked in its shared memory.

    Never raises for a node that does not answer within *timeout* seconds: it is not ``live``, and ``reason`` says why.
    """
    if node is None or node == this_node():
        with node_reader() as reader:
            return verdict_of(reader, this_node())
    return collect(ask({node: handle(node)}), timeout).nodes[node]


def cluster_verdict(*, timeout: float = ASK_SECONDS) -> ClusterVerdict:
    """Return what every node says that is alive for Ray; waits at most *timeout* seconds for all of them."""
    return collect(ask({node: handle(node) for node in alive_nodes()}), timeout)


def verdict_of(reader: Reader, node: str) -> NodeVerdict:
    """Return what *reader* says of *node*."""
    try:
        live = reader.status().state == LIVE
        return NodeVerdict(
            node,
            reader.level(),
            live=live,
            shed_fraction=reader.shed_fraction() if live else 0.0,
            reason=str(reader.explain()),
        )
    except MonitorError as error:
        return NodeVerdict(node, reason=str(error))


def ask(actors: dict[str, Any]) -> dict[str, Any]:
    """Ask *actors*, by node, and do not wait: return references of their answers, None where there is no actor."""
    return {node: None if actor is None else actor.verdict.remote() for node, actor in actors.items()}


def answered(asked: dict[str, Any], timeout: float) -> set[Any]:
    """Return the references of *asked* that have their answer within *timeout* seconds."""
    waiting = [reference for reference in asked.values() if reference is not None]
    return set(ray.wait(waiting, num_returns=len(waiting), timeout=timeout)[0]) if waiting else set()


def collect(asked: dict[str, Any], timeout: float) -> ClusterVerdict:
    """Return what has been answered within *timeout* seconds."""
    done = answered(asked, timeout)
    return ClusterVerdict({node: _answer(node, one, is_done=one in done) for node, one in asked.items()})


def _answer(node: str, reference: Any, *, is_done: bool) -> NodeVerdict:
    if reference is None:
        return NodeVerdict(node, reason="no sampler on this node; try: start_samplers()")
    if not is_done:
        return NodeVerdict(node, reason="the sampler's actor does not answer")
    try:
        answer: NodeVerdict = ray.get(reference)
    except ray.exceptions.RayError as error:
        return NodeVerdict(node, reason=str(error).splitlines()[0])
    return answer
