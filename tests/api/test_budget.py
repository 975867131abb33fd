"""The seats: who gets one, who has to go, and in which order."""

from __future__ import annotations

import pytest

from shm_monitor_api.budget import CONNECTIONS_MAX, HANDSHAKES_MAX, Budget, Seat, State
from shm_monitor_api.server import event_clients


class Guest:
    """A connection that notes its end."""

    def __init__(self, unsent: int = 0) -> None:
        self.dropped = False
        self.unsent = unsent

    def drop(self) -> None:
        self.dropped = True

    def unsent_bytes(self) -> int:
        return self.unsent


class Clock:
    """Moves when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def seated(budget: Budget, guest: Guest, state: State = State.SILENT) -> Seat:
    """Return the seat of *guest*, who does *state*."""
    seat = budget.take(guest)
    assert seat is not None
    seat.guest = guest
    budget.move(seat, state)
    return seat


def test_one_more_takes_the_seat_of_who_has_kept_silent_longest() -> None:
    budget = Budget(lambda: 3)
    first, second, third, fourth = (Guest() for _ in range(4))
    for guest in (first, second, third):
        seated(budget, guest)

    assert budget.take(fourth) is not None
    assert [guest.dropped for guest in (first, second, third, fourth)] == [True, False, False, False]
    assert (len(budget), budget.turned_out) == (3, 1)


def test_the_silent_go_before_the_waiting_and_these_before_those_who_do_not_read() -> None:
    budget = Budget(lambda: 4)
    states = (State.UNREAD, State.WAITING, State.SHAKING, State.SILENT)
    guests = {state: Guest() for state in states}
    for state, guest in guests.items():
        seated(budget, guest, state)
    order = []
    for _ in states:
        before = {state for state, guest in guests.items() if guest.dropped}
        seated(budget, Guest(), State.ANSWERED)
        order += [state for state, guest in guests.items() if guest.dropped and state not in before]

    assert order == [State.SILENT, State.SHAKING, State.WAITING, State.UNREAD]


def test_nobody_is_turned_out_while_being_answered() -> None:
    budget = Budget(lambda: 2)
    guests = Guest(), Guest()
    for guest in guests:
        seated(budget, guest, State.ANSWERED)

    assert budget.take(Guest()) is None
    assert not any(guest.dropped for guest in guests)


def test_a_seat_that_is_given_back_is_free() -> None:
    budget = Budget(lambda: 1)
    guest = Guest()
    seat = seated(budget, guest, State.ANSWERED)
    budget.leave(seat)
    budget.leave(seat)

    assert len(budget) == 0
    assert budget.take(Guest()) is not None
    assert not guest.dropped


def test_who_has_lost_the_seat_does_not_come_back() -> None:
    budget = Budget(lambda: 1)
    lost = seated(budget, Guest(), State.WAITING)
    seated(budget, Guest())
    budget.move(lost, State.ANSWERED)

    assert len(budget) == 1


def test_only_so_many_shake_hands_at_once() -> None:
    budget = Budget(lambda: 1000)
    guests = [Guest() for _ in range(HANDSHAKES_MAX + 5)]
    for guest in guests:
        seated(budget, guest, State.SHAKING)

    assert [guest.dropped for guest in guests] == [True] * 5 + [False] * HANDSHAKES_MAX


@pytest.mark.parametrize(("state", "seconds"), [(State.SILENT, 10.0), (State.SHAKING, 5.0), (State.WAITING, 10.0)])
def test_each_state_but_being_answered_has_its_time(state: State, seconds: float) -> None:
    clock = Clock()
    budget = Budget(lambda: 10, clock=clock)
    guest, answered = Guest(), Guest()
    seated(budget, guest, state)
    seated(budget, answered, State.ANSWERED)
    clock.now = seconds - 0.1
    budget.sweep()
    assert not guest.dropped
    clock.now = seconds
    budget.sweep()

    assert (guest.dropped, answered.dropped) == (True, False)


def test_listeners_leave_half_of_the_seats_to_others() -> None:
    """They are being answered as long as they like, so no seat of theirs can be had."""
    assert event_clients(512, CONNECTIONS_MAX) == 512
    assert event_clients(512, 100) == 50
    assert event_clients(512, 1) == 1


def test_what_nobody_reads_is_bounded_and_the_oldest_goes_first() -> None:
    budget = Budget(lambda: 10, unread_bytes_max=100)
    guests = [Guest(unsent=40) for _ in range(4)]
    for guest in guests:
        seated(budget, guest, State.UNREAD)

    assert [guest.dropped for guest in guests] == [True, True, False, False]
