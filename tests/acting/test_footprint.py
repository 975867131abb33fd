"""What work takes is learned as a line over its size: raised at once, lowered slowly, and what is fixed told apart."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm_monitor.acting.footprint import LARGEST_FIXED_SHARE, Footprint

RAMP = (1, 2, 4, 8, 16, 32, 64)


def taught(pieces: list[tuple[int, float]]) -> Footprint:
    made = Footprint()
    for units, peak_bytes in pieces:
        made.learn(units, peak_bytes)
    return made


def test_nothing_is_foreseen_of_work_of_which_nothing_is_known() -> None:
    assert taught([]).bytes_of(8) == 0
    assert taught([(8, 0.0)]).bytes_of(8) == 0


def test_more_than_foreseen_raises_at_once_and_less_lowers_slowly() -> None:
    made = taught([(4, 40.0), (4, 80.0)])
    assert made.bytes_per_unit == 20
    made.learn(4, 4.0)
    assert made.bytes_per_unit == pytest.approx(20 - 19 / 16)
    made.learn(8, 80.0)
    assert made.bytes_per_unit == pytest.approx((20 - 19 / 16 + 10) / 2), "more units than ever tell most"


def test_a_warning_raises_the_line_by_its_ratio_and_never_lowers_it() -> None:
    made = taught([(units, 8.0 + units) for units in RAMP * 30])
    fixed, per_unit = made.fixed_bytes, made.bytes_per_unit
    made.warn(2, made.bytes_of(2) * 1.5)
    assert made.fixed_bytes == pytest.approx(fixed * 1.5)
    assert made.bytes_per_unit == pytest.approx(per_unit * 1.5)
    made.warn(2, 1.0)
    assert made.bytes_per_unit == pytest.approx(per_unit * 1.5)


def test_what_is_fixed_is_told_apart_by_work_of_different_sizes() -> None:
    made = taught([(units, 16.0 + units) for units in RAMP * 30])
    assert made.fixed_bytes == pytest.approx(16, rel=0.1)
    assert made.bytes_per_unit == pytest.approx(1, rel=0.35), "small pieces that took more raise it with the rest"
    assert 48 <= made.units_in(80) <= 64
    assert made.units_in(10) == 0, "less than what is fixed"


def test_what_large_pieces_told_stands_while_only_small_ones_come() -> None:
    """Each of them takes mostly what is fixed: by rows alone, 64 would look like 400."""
    made = taught([(units, 16.0 + units) for units in (*RAMP * 30, *(3, 6, 3, 3) * 50)])
    assert 80 <= made.bytes_of(64) < 100


@given(st.floats(0, 1e9), st.floats(1, 1e9), st.lists(st.integers(1, 1000), min_size=2, max_size=60))
def test_of_a_line_never_less_is_foreseen_than_the_last_piece_took(
    fixed: float, per_unit: float, sizes: list[int]
) -> None:
    made = Footprint()
    for units in sizes:
        took = fixed + units * per_unit
        made.learn(units, took)
        assert made.bytes_of(units) >= took * (1 - 1e-6)
        assert made.bytes_per_unit > 0
        assert made.fixed_bytes >= 0


@given(st.floats(0, 1e9), st.floats(1, 1e9), st.lists(st.integers(1, 500), min_size=1, max_size=60))
def test_twice_the_work_is_foreseen_to_take_at_least_what_the_largest_fixed_share_leaves(
    fixed: float, per_unit: float, sizes: list[int]
) -> None:
    """Where a size is doubled, what is wrong about the line is bounded, and the next piece tells."""
    made = taught([(units, fixed + units * per_unit) for units in sizes])
    twice = 2 * max(sizes)
    assert made.bytes_of(twice) >= (1 - LARGEST_FIXED_SHARE / 2) * (fixed + twice * per_unit) * (1 - 1e-6)


def test_rows_of_any_length_fit_into_what_the_safety_of_a_governor_leaves() -> None:
    """Batches of text: a row takes 1 to 4, whatever the size; 0.6 of what is left is planned with."""
    draw = random.Random(1)
    made = taught([(units, 16 + 4.0 * units) for units in RAMP])
    worst = 0.0
    for _ in range(2000):
        units = draw.choice(RAMP)
        took = 16 + units * draw.uniform(1, 4)
        worst = max(worst, took / made.bytes_of(units))
        made.learn(units, took)
    assert 1 < worst < 1 / 0.6
