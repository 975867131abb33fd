"""Each node of a Ray cluster has its sampler, says what it thinks, and takes its sampler along when it dies."""

from __future__ import annotations

import functools
import os
import signal
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("ray.data", reason="ray[data] is not installed (make test-torch)")

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import shm_monitor as sm
from shm_monitor.integrations import ray as ours
from shm_monitor.integrations.ray.gauges import GAUGES, values
from shm_monitor.integrations.ray.nodes import NAMESPACE, actor_name, sampler_name
from shm_monitor.segment.status import LIVE
from shm_monitor.worker.injecting import inject
from tests.support.ray_nodes import Nodes, two_nodes, until

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS: dict[str, Any] = {"check_interval": 0.1, "observation_period": 1.0, "allow_injection": True}
pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]  # Ray's own, by the dozen


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """Two nodes with a sampler each."""
    with two_nodes() as made:
        assert not ours.cluster_verdict().nodes[made.second].live, "nobody has started it"
        assert sorted(ours.start_samplers(**SETTINGS)) == sorted([made.first, made.second])
        yield made


def press(node: str, percent: float = 99.0) -> None:
    with sm.attach(sampler_name(node)) as reader:
        inject(reader, {"memory_percent": percent}, 60.0)


def calm(*nodes: str) -> None:
    for node in nodes:
        with sm.attach(sampler_name(node)) as reader:
            inject(reader, {"memory_percent": 10.0}, 0.5)
    until(lambda: ours.cluster_verdict().level is sm.Level.OK)


def on(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id=node, soft=False)


def test_each_node_has_a_verdict_of_its_own_and_the_cluster_has_the_worst(nodes: Nodes) -> None:
    calm(nodes.first, nodes.second)
    press(nodes.second)
    until(lambda: ours.node_verdict(nodes.second).should_prune)

    verdict = ours.cluster_verdict(timeout=30.0)
    assert verdict.should_prune
    assert verdict.pressed == (nodes.second,)
    assert verdict.nodes[nodes.first].live
    assert ours.node_verdict().node == nodes.first
    assert not ours.node_verdict().should_prune
    assert "memory" in verdict.nodes[nodes.second].reason
    assert verdict.room == pytest.approx(0.5, abs=0.1), "one of two can keep its work, the other next to nothing"
    calm(nodes.second)


def test_a_task_asks_the_node_that_it_runs_on(nodes: Nodes) -> None:
    def ask() -> tuple[str, bool]:
        with ours.node_reader() as reader:
            return reader.name, reader.should_prune()

    asked = ray.remote(num_cpus=1)(ask)
    press(nodes.second)
    until(lambda: ours.node_verdict(nodes.second).should_prune)

    for node, pressed in ((nodes.first, False), (nodes.second, True)):
        answer = ray.get(asked.options(scheduling_strategy=on(node)).remote())
        assert answer == (sampler_name(node), pressed)
    calm(nodes.second)


def test_a_second_start_leaves_what_runs(nodes: Nodes) -> None:
    with sm.attach(sampler_name(nodes.second)) as reader:
        before = reader.status().pid
        assert sorted(ours.start_samplers(**SETTINGS)) == sorted([nodes.first, nodes.second])
        assert reader.status().pid == before


def test_a_sampler_whose_actor_is_killed_is_started_again_on_its_node(nodes: Nodes) -> None:
    actor = ray.get_actor(actor_name(nodes.second), namespace=NAMESPACE)
    with sm.attach(sampler_name(nodes.second)) as reader:
        before = reader.status().pid
        os.kill(ray.get(actor.pid.remote()), signal.SIGKILL)
        until(lambda: reader.status().state == LIVE and reader.status().pid != before)
    until(lambda: ours.node_verdict(nodes.second).live)


def test_tasks_of_ray_are_bounded_like_those_of_any_pool(nodes: Nodes) -> None:
    press(nodes.first)
    until(lambda: ours.node_verdict(nodes.first).should_prune)
    here = ours.RayExecutor(num_cpus=0.1, scheduling_strategy=on(nodes.first))
    with sm.BoundedExecutor(here, limit=8, reader=ours.node_reader(watch=["memory"])) as pool:
        futures = []
        for number in range(4):
            futures.append(pool.submit(lambda x: x * x, number))
            assert pool.running <= 1
        assert [future.result() for future in futures] == [0, 1, 4, 9]
    with pytest.raises(RuntimeError, match="after shutdown"):
        here.submit(abs, 1)
    calm(nodes.first)


def test_an_exception_of_a_task_comes_back_as_itself(nodes: Nodes) -> None:
    with ours.RayExecutor() as pool, pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 // 0).result()


def test_a_pipeline_that_is_always_hot_still_finishes(nodes: Nodes) -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    ours.enable()
    ours.enable()
    enabled = context.get_config("backpressure_policies.enabled")
    assert enabled.count(ours.PressureBackpressurePolicy) == 1
    assert len(enabled) == 4, "Ray's own three stay"
    for node in (nodes.first, nodes.second):
        press(node)
    until(lambda: len(ours.cluster_verdict().pressed) == 2)

    data = ray.data.range(40, override_num_blocks=8).map(lambda row: {"id": row["id"] + 1}, num_cpus=0.5)
    rows = data.map_batches(lambda batch: batch, num_cpus=0.25).take_all()

    assert sorted(row["id"] for row in rows) == list(range(1, 41))
    calm(nodes.first, nodes.second)


def test_every_gauge_has_a_value(nodes: Nodes) -> None:
    with ours.node_reader() as reader:
        found = values(ours.node_verdict(), reader.snapshot())

    assert found.keys() == GAUGES.keys()
    assert found["shm_monitor_live"] == 1
    assert found["shm_monitor_memory_usage_bytes"] > 0


def exported(node: dict[str, Any]) -> dict[str, float]:
    """Return our gauges as Prometheus scrapes them from the agent of *node*; empty as long as it does not answer."""
    from prometheus_client.parser import text_string_to_metric_families

    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
    except OSError:
        return {}
    return {
        sample.name.removeprefix("ray_"): sample.value
        for family in families
        if family.name.removeprefix("ray_") in GAUGES
        for sample in family.samples
        if sample.labels["node"] == node["NodeID"]
    }


def exports_all(node: dict[str, Any]) -> bool:
    return exported(node).keys() == GAUGES.keys()


def test_the_agent_of_each_node_exports_its_gauges(nodes: Nodes) -> None:
    pytest.importorskip("opencensus", reason='Ray\'s agent exports nothing without it; try: pip install "ray[default]"')
    calm(nodes.first, nodes.second)
    for node in ray.nodes():
        until(functools.partial(exports_all, node))
        assert exported(node)["shm_monitor_live"] == 1
        assert (
            exported(node)["shm_monitor_memory_capacity_bytes"] > exported(node)["shm_monitor_memory_usage_bytes"] > 0
        )

    first, second = sorted(ray.nodes(), key=lambda node: node["NodeID"] == nodes.second)
    press(nodes.second)
    until(lambda: exported(second).get("shm_monitor_level", 0) >= sm.Level.PRUNE)
    until(lambda: exported(second).get("shm_monitor_shed_fraction", 0) > 0)
    assert exported(first)["shm_monitor_level"] == sm.Level.OK
    calm(nodes.second)


def test_a_node_that_is_killed_takes_its_sampler_along(nodes: Nodes) -> None:
    reader = sm.attach(sampler_name(nodes.second))
    assert reader.status().state == LIVE
    nodes.kill_second()

    until(lambda: reader.status().state != LIVE)
    until(lambda: list(ours.cluster_verdict().nodes) == [nodes.first])
    assert ours.cluster_verdict().nodes[nodes.first].live
    assert not ours.node_verdict(nodes.second).live
    reader.close()


def test_what_was_started_is_stopped(nodes: Nodes) -> None:
    ours.stop_samplers()

    verdict = ours.node_verdict(nodes.first)
    assert not verdict.live
    assert not verdict.should_prune
    assert sm.attach(sampler_name(nodes.first), required=False, timeout=0.0).status().state != LIVE
