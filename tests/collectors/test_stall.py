"""Pressure on recorded trees: whose it is, and the share of our own window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shm_monitor.collectors.cgroup.scope import Scope
from shm_monitor.collectors.stall import StallCollector
from tests.support.host_trees import Tree, readings, sample

if TYPE_CHECKING:
    from pathlib import Path

TRAIN = "sys/fs/cgroup/jobs.slice/pod1/train"


def stall(tree: Tree, scope: str = "auto") -> StallCollector:
    return StallCollector(Scope.parse(scope), tree.roots, clock=tree.clock)


def test_the_share_is_that_of_our_own_window_whatever_avg10_says(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = stall(tree)
    assert readings(collector, "memory_some_percent", "memory_some_seconds") == ("not_yet_sampled", 0.003)
    tree.clock.forward(0.5)
    tree.write(f"{TRAIN}/memory.pressure", "some avg10=0.00 total=128000\nfull avg10=0.00 total=6500\n")

    assert readings(collector, "memory_some_percent", "memory_full_percent", "memory_full_seconds") == (25, 1, 0.0065)


@pytest.mark.parametrize(
    ("tree_name", "scope", "source"),
    [
        ("v2", "auto", "/jobs.slice/pod1/train"),
        ("v2", "pid:77", "host"),
        ("v2", "host", "host"),
        ("v1", "auto", "host"),
        ("hybrid", "auto", "/jobs/train"),
    ],
)
def test_pressure_is_that_of_our_v2_cgroup_where_it_has_any_else_of_the_host(
    tmp_path: Path, tree_name: str, scope: str, source: str
) -> None:
    assert stall(Tree(tree_name, tmp_path), scope).facts["source"] == source


def test_a_kernel_without_pressure_gives_not_supported(tmp_path: Path) -> None:
    tree = Tree("v1", tmp_path)
    for resource in ("cpu", "memory", "io"):
        tree.remove(f"proc/pressure/{resource}")

    assert set(sample(stall(tree)).values()) == {"not_supported"}


def test_an_older_kernel_has_no_full_line_for_the_cpu(tmp_path: Path) -> None:
    tree = Tree("v1", tmp_path)
    tree.write("proc/pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n")

    assert readings(stall(tree), "cpu_some_seconds", "cpu_full_seconds") == (7e-6, "not_supported")


def test_one_garbage_file_costs_its_own_resource_only(tmp_path: Path) -> None:
    tree = Tree("v1", tmp_path)
    tree.write("proc/pressure/memory", "some total=x\nfull total=\n")
    found = sample(stall(tree))

    assert found["stall.memory_some_seconds"] == found["stall.memory_full_seconds"] == "error"
    assert found["stall.io_some_seconds"] == pytest.approx(0.001)


def test_a_total_that_went_backwards_is_unknown(tmp_path: Path) -> None:
    tree = Tree("v1", tmp_path)
    collector = stall(tree)
    sample(collector)
    tree.clock.forward(1)
    tree.replace("proc/pressure/io", "total=1000", "total=10")

    assert readings(collector, "io_some_percent") == ("error",)


def test_pressure_after_a_move_is_that_of_the_new_cgroup(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = stall(tree)
    readings(collector, "memory_some_percent")
    tree.write("proc/self/cgroup", "0::/jobs.slice/pod2\n")
    for resource in ("cpu", "memory", "io"):
        tree.write(f"sys/fs/cgroup/jobs.slice/pod2/{resource}.pressure", "some avg10=0.00 total=1960000\n")

    assert readings(collector, "memory_some_percent", "memory_some_seconds") == ("not_yet_sampled", 1.96)
    assert collector.facts == {"source": "/jobs.slice/pod2"}
