"""Caches that are asked one by one outlive what kills those that do not ask: a small version of docs/survival.md."""

from __future__ import annotations

import pytest

from bench.survival.herd import run
from shm_monitor.segment import presence
from tests.support.host_trees import is_root

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(not is_root(), reason="making cgroups needs root"),
    pytest.mark.skipif(not presence.HAS_PRESENCE, reason="workers present themselves on Linux alone"),
]
SECONDS = 30.0


def test_one_that_is_killed_one_that_ignores_and_one_that_joins_late_cost_nobody_its_life() -> None:
    met = run(("presented",) * 7 + ("ignoring",), kill=True, join=True, seconds=SECONDS)

    assert met.ended == "finished"
    assert met.numbers["rounds"] >= 2
    assert met.numbers["given_mb"] <= met.numbers["asked_mb"] + met.numbers["rounds"] * 8 * 0.25, "a block each"
    assert run(("plain",) * 8, seconds=SECONDS).ended == "killed"
