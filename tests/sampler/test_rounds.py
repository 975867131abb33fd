"""A few are asked at a time, the largest first, until what is too much is covered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm_monitor.sampler.rounds import LEAST_BYTES, PASS_SECONDS, SETTLE_SECONDS, Candidate, Need, Rounds, shares

MB = 2**20


def workers(*held: int) -> list[Candidate]:
    made = [Candidate(slot, 100 + slot) for slot in range(len(held))]
    for one, size in zip(made, held, strict=True):
        one.held_bytes = size * MB
    return made


def asked(found: list[Candidate]) -> list[int]:
    return [one.request_bytes // MB for one in found]


def test_the_largest_holder_is_asked_first_and_no_more_than_it_takes() -> None:
    found = workers(100, 400, 200)
    Rounds().turn(found, Need(105 * MB), 0.0, is_critical=False)

    assert asked(found) == [0, 105, 0]


def test_nobody_is_asked_for_more_than_half_of_what_it_holds() -> None:
    found = workers(100, 400, 200)
    Rounds().turn(found, Need(290 * MB), 0.0, is_critical=False)

    assert asked(found) == [0, 200, 90]


def test_who_said_what_it_can_give_is_asked_for_no_more() -> None:
    found = workers(100, 400)
    found[1].sheddable_bytes = 30 * MB
    Rounds().turn(found, Need(60 * MB), 0.0, is_critical=False)

    assert asked(found) == [30, 30]


def test_what_is_on_its_way_is_not_asked_for_again() -> None:
    found, rounds = workers(400, 400), Rounds()
    rounds.turn(found, Need(100 * MB), 0.0, is_critical=False)
    rounds.turn(found, Need(100 * MB), 0.1, is_critical=False)
    assert asked(found) == [100, 0]
    assert rounds.number == 1

    rounds.turn(found, Need(150 * MB), 0.2, is_critical=False)
    assert asked(found) == [100, 50], "the others grew: the rest is asked of the next"
    assert rounds.number == 2


def test_a_request_ends_when_it_is_fulfilled() -> None:
    found, rounds = workers(400, 100), Rounds()
    rounds.turn(found, Need(100 * MB), 0.0, is_critical=False)
    found[0].held_bytes -= 100 * MB
    rounds.turn(found, Need(0.0), 0.5, is_critical=False)

    assert asked(found) == [0, 0]
    assert found[0].in_vain_count == 0


def test_who_does_not_react_is_passed_over_for_a_minute() -> None:
    found, rounds = workers(400, 300), Rounds()
    now = 0.0
    for _ in range(2):
        rounds.turn(found[:1], Need(100 * MB), now, is_critical=False)
        now += SETTLE_SECONDS
    rounds.turn(found, Need(100 * MB), now, is_critical=False)
    assert asked(found) == [0, 100]

    rounds.turn(found[:1], Need(100 * MB), now + PASS_SECONDS + 1, is_critical=False)
    assert asked(found[:1]) == [100]


def test_among_alike_the_one_that_was_asked_longest_ago() -> None:
    found, rounds = workers(100, 100, 100), Rounds()
    order = []
    for turn in range(3):
        rounds.turn(found, Need(20 * MB), turn * (SETTLE_SECONDS + 1), is_critical=False)
        order.append(asked(found).index(20))
        found[order[-1]].held_bytes -= 20 * MB
        rounds.turn(found, Need(0.0), turn * (SETTLE_SECONDS + 1) + 0.5, is_critical=False)
        found[order[-1]].held_bytes += 20 * MB

    assert sorted(order) == [0, 1, 2]


def test_at_the_end_all_are_asked_each_for_a_part() -> None:
    found = workers(100, 400, 200)
    Rounds().turn(found, Need(70 * MB), 0.0, is_critical=True)

    assert asked(found) == [10, 40, 20]


def test_at_the_end_what_is_on_its_way_counts_as_long_as_it_usually_takes() -> None:
    found, rounds = workers(100, 400, 200), Rounds()
    rounds.turn(found, Need(70 * MB), 0.0, is_critical=True)
    found[0].answered_round = rounds.number
    found[0].held_bytes -= 10 * MB
    rounds.turn(found, Need(60 * MB), 0.1, is_critical=True)
    assert rounds.number == 1

    rounds.turn(found, Need(60 * MB), 1.9, is_critical=True)
    assert asked(found) == [45, 40, 20], "the two others do not answer: the first one is asked for all that it can give"


def test_a_weight_makes_a_larger_share_fair() -> None:
    found = workers(300, 300)
    found[0].weight = 3.0
    Rounds().turn(found, Need(50 * MB), 0.0, is_critical=False)

    assert asked(found) == [0, 50]
    assert shares(found)[1] / shares(found)[0] == 3.0


@given(
    held=st.lists(st.integers(0, 10**9), min_size=1, max_size=20),
    deficit=st.integers(1, 10**9),
)
def test_what_is_asked_covers_the_deficit_as_far_as_it_can_and_no_further(held: list[int], deficit: int) -> None:
    found = [Candidate(slot, 1) for slot in range(len(held))]
    for one, size in zip(found, held, strict=True):
        one.held_bytes = size
    Rounds().turn(found, Need(deficit), 0.0, is_critical=False)
    held = [size if size // 2 >= LEAST_BYTES else 0 for size in held]

    total = sum(one.request_bytes for one in found)
    assert total <= deficit + 1
    assert total >= min(deficit, sum(size // 2 for size in held))
    assert all(one.request_bytes <= one.held_bytes // 2 for one in found)


@pytest.mark.parametrize("is_critical", [False, True])
def test_who_holds_almost_nothing_is_asked_for_nothing(*, is_critical: bool) -> None:
    found = workers(400, 0)
    found[1].held_bytes = 12_000
    Rounds().turn(found, Need(300 * MB), 0.0, is_critical=is_critical)

    assert found[0].request_bytes > 0
    assert found[1].request_bytes == 0


def test_a_round_asks_for_what_the_others_grow_by_until_it_is_given_back_and_waits_until_that_is_a_fifth() -> None:
    found, rounds = workers(200, 400), Rounds()
    rising = Need(20 * MB, room_bytes=100 * MB, rise=16 * MB)  # half a second of it, at first: 8 MB
    rounds.turn(found, rising, 0.0, is_critical=False)
    assert asked(found) == [0, 0]

    rounds.turn(found, rising._replace(deficit_bytes=40 * MB), 1.0, is_critical=False)
    assert asked(found) == [0, 48]


def test_however_fast_it_rises_a_round_begins_well_below_the_limit() -> None:
    found = workers(200, 400)
    Rounds().turn(found, Need(60 * MB, room_bytes=100 * MB, rise=500 * MB), 0.0, is_critical=False)

    assert asked(found) == [0, 76], "1.28 x what is over the target is the most"


def test_what_one_that_was_asked_in_vain_is_asked_for_is_asked_of_the_next_too() -> None:
    found, rounds = workers(400, 300), Rounds()
    rounds.turn(found, Need(100 * MB), 0.0, is_critical=False)
    rounds.turn(found, Need(100 * MB), SETTLE_SECONDS, is_critical=False)
    rounds.turn(found, Need(100 * MB), SETTLE_SECONDS + 0.1, is_critical=False)

    assert asked(found) == [100, 100], "the first has not reacted once: it is asked, and not counted on"


def test_an_answer_ends_a_request_though_the_worker_has_grown_again() -> None:
    found, rounds = workers(400, 100), Rounds()
    rounds.turn(found, Need(100 * MB), 0.0, is_critical=False)
    found[0].held_bytes -= 70 * MB
    found[0].answered_round = rounds.number
    rounds.turn(found, Need(20 * MB), 0.2, is_critical=False)

    assert asked(found) == [0, 20]
    assert found[0].in_vain_count == 0


def test_an_answer_that_gives_nothing_is_in_vain() -> None:
    found, rounds = workers(400), Rounds()
    rounds.turn(found, Need(100 * MB), 0.0, is_critical=False)
    found[0].answered_round = rounds.number
    rounds.turn(found, Need(100 * MB), 0.2, is_critical=False)

    assert found[0].in_vain_count == 1
