"""Who frees half when told once per episode, and leaks on, is told again: what returns is the next episode."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from numpy.typing import NDArray

from shm_monitor.schema import Reason
from tests.support.engine import Engine

HZ = 10
Floats = NDArray[np.float64]


def leak(first: float, last: float, *, percent_per_second: float = 10.0) -> Floats:
    return np.arange(first, last, percent_per_second / HZ)


def told_once() -> Engine:
    engine = Engine(hz=HZ).feed(np.r_[np.full(10 * HZ, 50.0), leak(50, 92)])
    assert engine.pressed[-1]
    assert engine.track("episodes_count") == 1
    return engine


def test_pressure_that_was_relieved_and_is_forecast_again_is_the_next_episode() -> None:
    engine = told_once()
    since, pressed = engine.track("pressed_since_seconds"), len(engine.pressed)

    engine.feed(leak(45, 97))

    assert engine.pressed[pressed:].all(), "it presses all the while: nothing was calm for a period"
    assert engine.track("episodes_count") == engine.track("forecast_episodes_count") == 2
    assert since + 3 < engine.track("pressed_since_seconds") == engine.track("forecast_since_seconds")
    assert engine.track("forecast_value") < 97 * 2**20
    assert engine.reasons[-1] & Reason.FORECAST


def test_a_little_less_is_no_relief() -> None:
    engine = told_once()

    engine.feed(leak(71, 97))

    assert engine.track("episodes_count") == 1


@pytest.mark.parametrize(("high", "low"), [(95.0, 79.0), (98.0, 60.0), (98.0, 10.0)])
def test_turns_of_high_and_low_are_one_episode(high: float, low: float) -> None:
    """They lead nowhere: no line, no forecast. LEVEL and CAPACITY hold on, and are not set again."""
    engine = Engine().feed([60.0] * 30 + [high, low, high] * 50)

    assert engine.pressed[-1]
    assert engine.track("episodes_count") == 1


def test_what_is_seen_while_nothing_presses_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    engine = told_once().feed([40.0] * (12 * HZ))
    assert not engine.pressed[-1]

    engine.feed(leak(50, 94))

    assert engine.track("episodes_count") == 2
    assert "again" not in caplog.text


def test_the_log_says_that_it_presses_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    told_once().feed(leak(45, 97))

    begun = [record.message for record in caplog.records if "(forecast" in record.message]
    assert [("prune again" in line) for line in begun] == [False, True]
    assert begun[0].split("at ")[1] != begun[1].split("at ")[1], "the numbers are those of this time"
