"""The rate of a rise is learned while some of it is given back."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm_monitor.sampler.rise import Rise


def learned(readings: list[float], place: int = 0) -> Rise:
    rise = Rise()
    for turn, reading in enumerate(readings):
        rise.turn(reading, place, turn * 0.1)
    return rise


def test_a_steady_rise_is_known_after_some_seconds_whatever_is_given_back_meanwhile() -> None:
    saw = [(turn * 5.0) % 60.0 for turn in range(200)]  # 50 a second, and each 1.2 s all of it is given back

    assert learned(saw).rate == pytest.approx(50.0, rel=0.01)


def test_where_nothing_rises_any_more_the_rate_goes_down_to_nothing() -> None:
    assert learned([turn * 5.0 for turn in range(100)] + [500.0] * 200).rate < 0.01


def test_another_level_of_memory_is_no_rise() -> None:
    rise = learned([10.0, 10.0])
    rise.turn(1000.0, 1, 0.2)

    assert rise.rate == 0.0


def test_what_is_not_known_teaches_nothing() -> None:
    assert learned([0.0, math.nan, 1000.0, math.nan]).rate == 0.0


@given(readings=st.lists(st.floats(-1e12, 1e12), min_size=2, max_size=50))
def test_a_rate_is_never_above_the_steepest_step(readings: list[float]) -> None:
    steepest = max(max(after - before, 0.0) / 0.1 for before, after in pairwise(readings))

    assert 0.0 <= learned(readings).rate <= steepest * (1 + 1e-6)
