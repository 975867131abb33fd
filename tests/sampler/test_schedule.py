"""When the next sample is due: the n-th at start + n intervals, and none is caught up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shm_monitor.sampler.schedule import Schedule

START_NS, INTERVAL_NS = 7_000, 1_000


def test_turns_are_due_at_start_plus_n_intervals_whatever_the_samples_took() -> None:
    schedule = Schedule(START_NS, INTERVAL_NS)
    for turn in range(5):
        assert schedule.due_ns == START_NS + turn * INTERVAL_NS
        schedule.take_turn(schedule.due_ns + 300)

    assert schedule.missed_turns_count == 0


def test_a_late_turn_swallows_those_before_it_and_counts_them() -> None:
    schedule = Schedule(START_NS, INTERVAL_NS)
    schedule.take_turn(START_NS)
    schedule.take_turn(START_NS + 50_300)

    assert schedule.due_ns == START_NS + 51_000, "not at once again"
    assert schedule.missed_turns_count == 49


def test_a_turn_that_is_late_by_half_an_interval_is_the_next_one() -> None:
    schedule = Schedule(START_NS, INTERVAL_NS)
    schedule.take_turn(START_NS + 500)

    assert (schedule.due_ns, schedule.missed_turns_count) == (START_NS + 2_000, 1)


@given(delays=st.lists(st.integers(0, 5 * INTERVAL_NS), min_size=1, max_size=50))
def test_samples_are_half_an_interval_apart_and_every_turn_is_taken_or_counted(delays: list[int]) -> None:
    schedule, before = Schedule(START_NS, INTERVAL_NS), -INTERVAL_NS
    for taken, delay in enumerate(delays, start=1):
        now = max(before, schedule.due_ns) + delay
        schedule.take_turn(now)
        assert schedule.due_ns - now >= INTERVAL_NS / 2
        assert schedule.turn == taken + schedule.missed_turns_count
        before = now
