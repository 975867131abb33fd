"""Compiled code makes flags as ``shm_monitor.segment.flags`` says, and writes the columns of each reason."""

from __future__ import annotations

import pytest

from shm_monitor.kernels import decide
from shm_monitor.schema import PRESSING, TRACK_FIELDS, Reason
from shm_monitor.segment.flags import verdict_word


@pytest.mark.parametrize(("value", "shed"), [(80.0, 0.0), (90.0, 0.0), (96.0, 0.6), (120.0, 1.0)])
def test_the_decision_puts_its_words_together_as_flags_does(value: float, shed: float) -> None:
    """A capacity of 100, a limit of 95 and a target of 90."""
    at = decide.Standing(value, 95.0, 90.0, 100.0, value / 100, 0.95, 0.9, runs_out=True, is_off=False, is_above=False)

    assert decide.word_of(at, 2, 9) == verdict_word(2, 9, shed)


def test_two_words_together_have_the_highest_level_all_reasons_and_the_most_to_shed() -> None:
    assert decide.both_words(verdict_word(3, 4, 0.1), verdict_word(1, 1, 0.9)) == verdict_word(3, 5, 0.9)


def test_each_reason_that_presses_has_the_same_columns_in_the_order_of_its_bit() -> None:
    assert [1 << place for place in range(len(PRESSING))] == [int(Reason[name.upper()]) for name in PRESSING]
    width, first = decide.EACH_WIDTH, TRACK_FIELDS[decide.EACH : decide.EACH + decide.EACH_WIDTH]
    for place, name in enumerate(PRESSING):
        own = TRACK_FIELDS[decide.EACH + place * width : decide.EACH + (place + 1) * width]
        assert own == tuple(column.replace("level_", f"{name}_", 1) for column in first)
    assert decide.EACH + len(PRESSING) * width == len(TRACK_FIELDS)
