"""What Ray Data's operators may run while nodes press: less, by how much the nodes can keep, and never nothing."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("ray.data", reason="ray[data] is not installed (make test-torch)")

import shm_monitor as sm
from shm_monitor.integrations.ray.data import ASK_SECONDS, LATE_SECONDS, Nodes, PressureBackpressurePolicy
from shm_monitor.integrations.ray.verdicts import ClusterVerdict, NodeVerdict

OK, PRUNE, CRITICAL = sm.Level.OK, sm.Level.PRUNE, sm.Level.CRITICAL


class Operator:
    """An operator of Ray Data, as far as a policy looks at it."""

    def __init__(self, running: int) -> None:
        self.running = running

    def num_active_tasks(self) -> int:
        return self.running


def verdict(*levels: sm.Level, shed: float = 0.5) -> ClusterVerdict:
    return ClusterVerdict(
        {str(at): NodeVerdict(str(at), level, live=True, shed_fraction=shed) for at, level in enumerate(levels)}
    )


def policy(*verdicts: ClusterVerdict) -> PressureBackpressurePolicy:
    """A policy whose nodes say *verdicts* in turn, and then the last one for ever."""
    left = list(verdicts)
    return PressureBackpressurePolicy(None, {}, None, nodes=lambda: left.pop(0) if len(left) > 1 else left[0])


def test_calm_nodes_ask_for_nothing() -> None:
    assert policy(verdict(OK, OK)).can_add_input(Operator(100))


@pytest.mark.parametrize(
    ("levels", "allowed"),
    [((PRUNE, OK), 7), ((CRITICAL, OK), 5), ((PRUNE, PRUNE), 5), ((CRITICAL, CRITICAL), 1)],
)
def test_an_operator_keeps_what_its_nodes_can_keep(levels: tuple[sm.Level, ...], allowed: int) -> None:
    made, operator = policy(verdict(*levels)), Operator(10)
    assert not made.can_add_input(operator), "ten run as it begins, and no more"
    operator.running = allowed
    assert not made.can_add_input(operator)
    operator.running = allowed - 1
    assert made.can_add_input(operator)


def test_an_operator_that_runs_nothing_always_gets_a_task() -> None:
    made = policy(verdict(CRITICAL))
    idle, busy = Operator(0), Operator(3)
    assert not made.can_add_input(busy)
    assert made.can_add_input(idle), "what is downstream must run, so that what is upstream may"


def test_each_episode_begins_with_what_runs_then() -> None:
    made = policy(verdict(PRUNE), verdict(OK), verdict(PRUNE))
    operator = Operator(4)
    assert not made.can_add_input(operator)
    assert made.can_add_input(operator)
    operator.running = 40
    assert not made.can_add_input(operator)
    operator.running = 19
    assert made.can_add_input(operator)


def test_a_node_without_a_live_sampler_brakes_nothing() -> None:
    silent = ClusterVerdict({"0": NodeVerdict("0", reason="no sampler"), "1": NodeVerdict("1")})
    assert silent.room == 1.0
    assert policy(silent).can_add_input(Operator(9))


def test_a_cluster_that_nobody_knows_of_brakes_nothing() -> None:
    assert ClusterVerdict({}).level is OK
    assert ClusterVerdict({}).room == 1.0


class Answers:
    """Stands for Ray: references are answered when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from shm_monitor.integrations.ray import data

        self.now, self.asked, self.is_answered = 0.0, 0, False
        monkeypatch.setattr(data, "alive_nodes", lambda: ["0"])
        monkeypatch.setattr(data, "handle", lambda node: "actor")
        monkeypatch.setattr(data, "ask", self._ask)
        monkeypatch.setattr(data, "answered", lambda asked, timeout: set(asked.values()) if self.is_answered else set())
        monkeypatch.setattr(data, "collect", self._collect)

    def clock(self) -> float:
        return self.now

    def _ask(self, actors: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        return dict.fromkeys(actors, self.asked)

    def _collect(self, asked: dict[str, Any], timeout: float) -> ClusterVerdict:
        assert timeout == 0.0, "a scheduling loop waits for nobody"
        return ClusterVerdict({node: NodeVerdict(node, CRITICAL if self.is_answered else OK) for node in asked})


def test_nodes_are_asked_a_few_times_a_second_and_never_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(monkeypatch)
    nodes = Nodes(answers.clock)
    assert nodes().level is OK
    assert (nodes(), answers.asked) == (ClusterVerdict({}), 1)
    answers.now += ASK_SECONDS
    assert (nodes().level, answers.asked) == (OK, 1), "not answered yet: nobody is asked twice"
    answers.is_answered = True
    assert (nodes().level, answers.asked) == (CRITICAL, 2)


def test_a_node_that_no_longer_answers_keeps_its_verdict_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(monkeypatch)
    answers.is_answered = True
    nodes = Nodes(answers.clock)
    nodes()
    answers.now += ASK_SECONDS
    assert nodes().level is CRITICAL
    answers.is_answered = False
    answers.now += LATE_SECONDS / 2
    assert nodes().level is CRITICAL
    answers.now += LATE_SECONDS
    assert nodes().level is OK
