"""What compiled code knows of a flag by heart is what ``shm_monitor.segment.flags`` says."""

from __future__ import annotations

from shm_monitor.kernels import atomics, decide
from shm_monitor.schema import PRESSING, TRACK_FIELDS, Reason
from shm_monitor.segment import flags


def test_the_decision_puts_its_words_together_as_flags_does() -> None:
    assert decide._LEVEL_SHIFT == flags.LEVEL_SHIFT
    assert decide._REASONS_SHIFT == flags.REASONS_SHIFT
    assert (decide._SHED_SHIFT, decide._SHED_MOST) == (flags.SHED_SHIFT, flags.SHED_MAX)
    assert decide._BETWEEN == flags.BETWEEN


def test_a_compiled_loop_knows_the_mark_of_the_dead() -> None:
    assert atomics._DIED == flags.DIED_BYTE


def test_each_reason_that_presses_has_columns_in_the_order_of_its_bit() -> None:
    first = [TRACK_FIELDS.index(f"{name}_since_seconds") for name in PRESSING]

    assert [1 << place for place in range(len(PRESSING))] == [int(Reason[name.upper()]) for name in PRESSING]
    assert first == [decide.EACH + place * decide.EACH_WIDTH + decide.SINCE for place in range(len(PRESSING))]
