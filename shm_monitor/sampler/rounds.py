"""Who is asked to shed, and how much: a few at a time, until what is over the target is covered.

All at once, eight workers with a cache each dropped 776 MB where 105 were too much, and did 60 % of the possible work.

A round asks for what is over the target and a margin: what the others will have grown by until it is given back. So
that the margin stays small beside the rest, a round waits until it is worth it. Source: the herd in docs/survival.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from shm_monitor.segment.flags import ROUND_MASK

LEAST_BYTES = 1 << 20  # half of what a worker holds is worth a request from here on: less frees nothing that counts
HALF = 0.5  # of what a worker holds is the most that one request asks for
SETTLE_SECONDS = 2.0  # that a request has for its effect; nobody is asked again before
VAIN_REQUESTS = 2  # without effect, and a worker is passed over
PASS_SECONDS = 60.0
EFFECT = 0.25  # of what was asked for: less has had none
MARGIN_REACTIONS = 2.0  # so many reactions of growth is the margin: a busy machine takes longer than usual
MARGIN = 0.28  # of what is over the target is the margin at most: 1.3 x may be shed
WORTH = 0.2  # of what is over the target: a round waits until the margin is no more than this,
PART_OF_ROOM = 0.6  # but not beyond this part of what is between target and limit
PATIENCE_REACTIONS = 8.0  # so many usual reactions after it was made a request is not counted on any more,
LEAST_PATIENCE_SECONDS = 0.5  # but it stays
_FIRST_REACTION_SECONDS = 0.25  # patient at first: a loop may ask between its steps alone
_LEARNED = 0.25  # weight of the newest reaction
_NEVER = float("-inf")


class Need(NamedTuple):
    """What a round is about.

    Args:
        deficit_bytes: usage over the target.
        room_bytes: between target and limit.
        rise: of usage, bytes per second.
    """

    deficit_bytes: float
    room_bytes: float = 0.0
    rise: float = 0.0


class Candidate:
    """One present worker, from round to round.

    Attributes:
        slot: its own; pid is 0 where it cannot be seen from here.
        held_bytes: what it holds above what it had when it presented itself.
        weight: of its fair share.
        sheddable_bytes: what it said that it can give back; None where it said nothing.
        answered_round: the newest round that it said to have answered, modulo 2**16.
        request_bytes: what it is asked for now; 0 for nothing. round_number is the newest round that asked it.
        in_vain_count: how often in a row asking had no effect.
        asked_at: when it was asked last, seconds; settle_seconds is what a request has for its effect.
        is_willing: False for who does not want to be asked for this.
    """

    def __init__(self, slot: int, pid: int, settle_seconds: float = SETTLE_SECONDS) -> None:
        self.slot, self.pid, self.settle_seconds = slot, pid, settle_seconds
        self.is_willing = True
        self.held_bytes = 0
        self.weight = 1.0
        self.sheddable_bytes: int | None = None
        self.answered_round = 0
        self.request_bytes = 0
        self.round_number = 0
        self.in_vain_count = 0
        self.asked_at = _NEVER
        self.passed_until = _NEVER
        self._held_when_asked = 0

    @property
    def fallen_bytes(self) -> int:
        """What it has given back since it was asked."""
        return max(self._held_when_asked - self.held_bytes, 0)

    @property
    def is_through(self) -> bool:
        """True when it has answered its request, or given back what it asks for."""
        has_answered = self.answered_round == self.round_number & ROUND_MASK
        return has_answered or self.fallen_bytes >= self.request_bytes

    @property
    def most_bytes(self) -> int:
        """The most that it can be asked for."""
        half = int(self.held_bytes * HALF)
        most = half if self.sheddable_bytes is None else min(half, self.sheddable_bytes)
        return most if most >= LEAST_BYTES else 0

    def ask(self, size_bytes: int, round_number: int, now: float) -> None:
        """Ask for *size_bytes*."""
        self.request_bytes, self.round_number, self.asked_at = size_bytes, round_number, now
        self._held_when_asked = self.held_bytes

    def settle(self, now: float, *, is_over: bool = False) -> None:
        """Take the request back once it is fulfilled, answered, or *is_over*, which it is at the latest after a while.

        Nothing is said of who has not had its usual time.
        """
        if not self.request_bytes or not (self.is_through or is_over or now - self.asked_at >= self.settle_seconds):
            return
        if self.fallen_bytes >= EFFECT * self.request_bytes:
            self.in_vain_count = 0
        else:
            self.in_vain_count += 1
            if self.in_vain_count >= VAIN_REQUESTS:
                self.passed_until = now + PASS_SECONDS
        self.request_bytes = 0

    def may_be_asked(self, now: float) -> bool:
        """Say whether a round may ask it, if it is not critical."""
        has_settled = now - self.asked_at >= self.settle_seconds and now >= self.passed_until
        return has_settled and not self.request_bytes and self.most_bytes > 0


class Rounds:
    """The rounds of one sampler.

    Attributes:
        number: of the newest round; counted on for ever, shown modulo 2**16.
    """

    def __init__(self, numbers: Iterator[int] | None = None) -> None:
        """Take the number of each round from *numbers*, of which none may be 0 modulo 2**16."""
        self.number = 0
        self._numbers = itertools.count(1) if numbers is None else numbers
        self._reaction_seconds = _FIRST_REACTION_SECONDS

    def turn(self, workers: Sequence[Candidate], need: Need, now: float, *, is_critical: bool) -> None:
        """Ask as many of *workers* as it takes to cover the *need*; each for a part when it *is_critical*.

        Args:
            workers: who is present, with what each holds now.
            need: with a deficit of 0 or less nobody is asked, and every request is taken back.
            now: seconds, monotonic.
            is_critical: the capacity is all but reached.
        """
        patience = min(max(PATIENCE_REACTIONS * self._reaction_seconds, LEAST_PATIENCE_SECONDS), SETTLE_SECONDS)
        for worker in [one for one in workers if one.request_bytes]:
            self._learn(worker, now)
            worker.settle(now, is_over=need.deficit_bytes <= 0 and now - worker.asked_at >= patience)
            if need.deficit_bytes <= 0:
                worker.request_bytes = 0
        if need.deficit_bytes <= 0:
            return
        margin = MARGIN_REACTIONS * need.rise * self._reaction_seconds
        missing = need.deficit_bytes - _in_flight_bytes(workers, now - patience)
        if is_critical:
            if missing > 0:
                self._ask_all(workers, missing + min(margin, MARGIN * missing), now)
        elif missing > 0 and missing >= min(margin / WORTH, PART_OF_ROOM * need.room_bytes):
            self._ask_largest(workers, missing + min(margin, MARGIN * missing), now)

    def _learn(self, worker: Candidate, now: float) -> None:
        """Learn from a request that *worker* has just fulfilled how long that takes."""
        if worker.is_through:
            took = min(max(now - worker.asked_at, 0.0), worker.settle_seconds)
            self._reaction_seconds += _LEARNED * (took - self._reaction_seconds)

    def _ask_largest(self, workers: Sequence[Candidate], missing: float, now: float) -> None:
        """Ask one after the other, the largest first and among alike the least recently asked, for *missing* bytes."""
        free = [worker for worker in workers if worker.may_be_asked(now)]
        if free:
            self.number = next(self._numbers)
        for worker in sorted(free, key=lambda one: (-one.held_bytes / one.weight, one.asked_at)):
            if missing <= 0:
                return
            size = min(worker.most_bytes, int(missing) + 1)
            worker.ask(size, self.number, now)
            if not worker.in_vain_count:  # else it is asked, and not counted on
                missing -= size

    def _ask_all(self, workers: Sequence[Candidate], missing: float, now: float) -> None:
        """Ask everybody who is not asked yet for a part of *missing* bytes: as much of it as it can give of all."""
        free = [worker for worker in workers if not worker.request_bytes and worker.most_bytes > 0]
        most = sum(worker.most_bytes for worker in free)
        if free:
            self.number = next(self._numbers)
        for worker in free:
            worker.ask(min(int(missing * worker.most_bytes / most) + 1, worker.most_bytes), self.number, now)


def _in_flight_bytes(workers: Sequence[Candidate], since: float) -> int:
    """Return what was asked for *since* then and will yet be given back, by who usually does."""
    return sum(
        max(worker.request_bytes - worker.fallen_bytes, 0)
        for worker in workers
        if worker.request_bytes and not worker.in_vain_count and worker.asked_at > since
    )


def shares(workers: Sequence[Candidate]) -> Mapping[int, float]:
    """Return by slot what each holds over its fair share: 1.0 is fair; 0.0 where nobody holds anything."""
    held = sum(worker.held_bytes for worker in workers)
    weights = sum(worker.weight for worker in workers)
    if not held or not weights:
        return {worker.slot: 0.0 for worker in workers}
    return {worker.slot: worker.held_bytes / (held * worker.weight / weights) for worker in workers}
