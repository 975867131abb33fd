"""Jobs that act on pressure finish where plain ones are killed: a small version of docs/survival.md."""

from __future__ import annotations

import pytest

from bench.survival.scenarios.neighbour import beside_neighbour
from bench.survival.scenarios.pool import tasks
from bench.survival.stage import module, run
from tests.support import mapped_tasks
from tests.support.host_trees import is_root

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(not is_root(), reason="making cgroups needs root"),
]


def test_a_governed_loop_outlives_a_neighbour_that_kills_the_plain_one() -> None:
    governed = beside_neighbour("governor", 49)

    assert beside_neighbour("256", 49).ended == "killed"
    assert governed.ended == "finished"
    assert governed.result == beside_neighbour("32", 49).result


def test_a_bounded_pool_does_all_tasks_where_the_plain_one_breaks() -> None:
    assert tasks("plain").ended == "broken"
    assert tasks("bounded").result == "64"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_bounded_map_does_all_tasks_of_a_multiprocessing_pool(method: str) -> None:
    mapped = run(module(mapped_tasks.__name__, "bounded", method))
    assert (mapped.ended, mapped.result) == ("finished", str(mapped_tasks.TASKS))


@pytest.mark.parametrize("how", ["imap", "throttled"])
def test_imap_of_a_multiprocessing_pool_loses_tasks_and_waits_for_them_for_ever(how: str) -> None:
    """Also behind throttle(), whose items it takes all at once."""
    assert run(module(mapped_tasks.__name__, how, "fork"), longest_seconds=20.0).ended == "late"
