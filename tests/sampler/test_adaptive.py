"""Memory alone is looked at between two turns, as often as its headroom asks for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shm_monitor.sampler.schedule import Schedule
from tests.support.engine import Engine

SECOND_NS = 10**9


def schedule() -> Schedule:
    one = Schedule(0, SECOND_NS)
    one.take_turn(0)
    return one


@pytest.mark.parametrize(
    ("now", "wait", "due"),
    [(0.0, math.inf, 0), (0.0, 2.0, 0), (0.0, 0.25, 0.25), (0.25, 0.1, 0.35), (0.5, 1e-6, 0.52), (0.97, 0.01, 0)],
)
def test_memory_is_due_between_turns_after_its_wait_and_never_at_the_turn_itself(
    now: float, wait: float, due: float
) -> None:
    assert schedule().between_ns(int(now * SECOND_NS), wait) == pytest.approx(due * SECOND_NS)


def test_the_wait_is_an_eighth_of_the_time_to_the_end_and_endless_while_memory_does_not_rise() -> None:
    engine = Engine().feed([60.0, 70.0])
    assert engine.decider.wait_seconds == pytest.approx(30 / 10 / 8)

    engine.feed([70.0])
    assert engine.decider.wait_seconds == pytest.approx(30 / 5 / 8)  # over two intervals: one may hide a rise

    engine.feed([70.0])
    assert math.isinf(engine.decider.wait_seconds)


def test_while_memory_presses_it_is_looked_at_at_least_each_sixteenth_of_the_horizon() -> None:
    engine = Engine().feed([60.0] * 10 + [98.0])
    engine.feed([40.0] * 3)

    assert engine.pressed[-1]
    assert engine.decider.wait_seconds == 4.0 / 16


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("percent_per_second", [20.0, 30.0, 60.0])
def test_a_fast_ramp_prunes_in_time_with_adaptive_sampling(percent_per_second: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    engine = Engine().feed([50.0] * 20)
    plan, began_ns, period_ns = Schedule(engine.now_ns, SECOND_NS), engine.now_ns, SECOND_NS
    plan.take_turn(engine.now_ns)
    while engine.track("level") < 2 and engine.now_ns - began_ns < 5 * period_ns:
        between = plan.between_ns(engine.now_ns, engine.decider.wait_seconds)
        at_ns = between or plan.due_ns
        if not between:
            plan.take_turn(at_ns)
        value = 50 + percent_per_second * max(at_ns - began_ns - SECOND_NS // 2, 0) / 1e9
        engine.set("memory.usage_bytes", min(value + random.normal(0, 0.3), 100.0) * 2**20)
        engine.sample(at_ns=at_ns, between=bool(between))

    assert engine.record["values"][0, 0] < 100 * 2**20
    assert engine.track("level") >= 2
