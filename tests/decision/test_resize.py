"""A limit that is resized in place: shares of the capacity jump, memory does not, and no line is made of the jump."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shm_monitor.decision.rules import MEBIBYTE
from shm_monitor.schema import Reason
from tests.support.engine import Engine, Settings

pytestmark = pytest.mark.thorough

SEEDS = range(20)
DEFAULT_LIMIT = Settings(max_memory_usage_mb=None, target_utilization=0.9)


def resize(engine: Engine, capacity_mb: float) -> None:
    engine.set("memory.capacity_bytes", capacity_mb * MEBIBYTE)


@pytest.mark.parametrize("hz", [1, 10])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("capacities_mb", [(100.0, 67.0), (100.0, 60.0, 58.0, 56.0), (60.0, 100.0, 60.0)])
def test_memory_that_stays_where_it_is_has_no_seconds_to_the_end(
    capacities_mb: tuple[float, ...], seed: int, hz: int
) -> None:
    random = np.random.default_rng(seed)
    engine = Engine(DEFAULT_LIMIT, hz=hz)
    for capacity in capacities_mb:
        resize(engine, capacity)
        for usage in random.normal(50, 0.02, 12 * hz):
            engine.feed([usage])
            left = engine.track("seconds_to_limit")
            assert math.isnan(left) or left > 60, "noise of 0.02 % at most, never the resize"
            assert not engine.reasons[-1] & Reason.FORECAST


@pytest.mark.parametrize("after_mb", [90.0, 140.0])
def test_a_rise_has_the_seconds_that_its_bytes_have_left_as_soon_as_the_limit_is_resized(after_mb: float) -> None:
    engine = Engine(DEFAULT_LIMIT, hz=10).feed(40 + 0.2 * np.arange(200))
    assert engine.track("seconds_to_limit") == pytest.approx((100 - 79.8) / 2)

    resize(engine, after_mb)
    engine.feed([80.0])

    assert engine.track("seconds_to_limit") == pytest.approx((after_mb - 80.0) / 2, rel=0.01)


def test_how_full_it_was_counts_as_it_was() -> None:
    """Who pressed at 94 of 100 presses for a period more: for LEVEL a resize is no reason to forget."""
    engine = Engine(DEFAULT_LIMIT).feed([94.0] * 20)
    resize(engine, 200.0)
    engine.feed([94.0] * 3)

    assert engine.pressed[-1]
    assert engine.track("maximum") == pytest.approx(0.94 * 200 * MEBIBYTE)


def test_memory_is_not_looked_at_more_often_for_a_resize() -> None:
    engine = Engine(DEFAULT_LIMIT).feed([50.0] * 20)
    resize(engine, 70.0)
    engine.feed([50.0])

    assert math.isinf(engine.decider.wait_seconds)
