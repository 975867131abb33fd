"""Jobs that act on pressure finish where plain ones are killed: a small version of docs/survival.md."""

from __future__ import annotations

import pytest

from bench.survival import run
from tests.support.host_trees import is_root

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not is_root(), reason="making cgroups needs root")]


def test_a_governed_loop_outlives_a_neighbour_that_kills_the_plain_one() -> None:
    plain = run("train", "256", 49, with_neighbour=True)
    governed = run("train", "governor", 49, with_neighbour=True)
    fixed = run("train", "32", 49, with_neighbour=True)

    assert not plain.finished
    assert governed.finished
    assert governed.result == fixed.result


def test_a_bounded_pool_does_all_tasks_where_the_plain_one_breaks() -> None:
    assert not run("pool", "plain", 0, with_neighbour=False).finished
    assert run("pool", "governor", 0, with_neighbour=False).result == "64"
