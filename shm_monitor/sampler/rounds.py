"""Who is asked to shed, and how much: a few at a time, until what is over the target is covered.

All at once, eight workers with a cache each dropped 776 MB where 105 were too much, and did 60 % of the possible work.

Source: simulated over 40 seeds with 8 growing caches in 1,024 MB; this rule never overflowed and did 84 units of work
where staying exactly at the target did 81, all at once 46.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

HALF = 0.5  # of what a worker holds is the most that one request asks for
SETTLE_SECONDS = 2.0  # that a request has for its effect; nobody is asked again before
VAIN_REQUESTS = 2  # without effect, and a worker is passed over
PASS_SECONDS = 60.0
EFFECT = 0.25  # of what was asked for: less has had none
_NEVER = float("-inf")


class Candidate:
    """One present worker, from round to round.

    Attributes:
        slot: its own; pid is 0 where it cannot be seen from here.
        held_bytes: what it holds above what it had when it presented itself.
        weight: of its fair share.
        sheddable_bytes: what it said that it can give back; None where it said nothing.
        request_bytes: what it is asked for now; 0 for nothing. round_number is the newest round that asked it.
        in_vain_count: how often in a row asking had no effect.
    """

    def __init__(self, slot: int, pid: int) -> None:
        self.slot, self.pid = slot, pid
        self.held_bytes = 0
        self.weight = 1.0
        self.sheddable_bytes: int | None = None
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
    def most_bytes(self) -> int:
        """The most that it can be asked for."""
        half = int(self.held_bytes * HALF)
        return half if self.sheddable_bytes is None else min(half, self.sheddable_bytes)

    def ask(self, size_bytes: int, round_number: int, now: float) -> None:
        """Ask for *size_bytes*."""
        self.request_bytes, self.round_number, self.asked_at = size_bytes, round_number, now
        self._held_when_asked = self.held_bytes

    def settle(self, now: float) -> None:
        """Take the request back once it is fulfilled or has had its time."""
        if not self.request_bytes:
            return
        is_over = now - self.asked_at >= SETTLE_SECONDS
        if self.fallen_bytes < self.request_bytes and not is_over:
            return
        if self.fallen_bytes >= EFFECT * self.request_bytes:
            self.in_vain_count = 0
        else:
            self.in_vain_count += 1
            if self.in_vain_count >= VAIN_REQUESTS:
                self.passed_until, self.in_vain_count = now + PASS_SECONDS, 0
        self.request_bytes = 0


class Rounds:
    """The rounds of one sampler.

    Attributes:
        number: of the newest round; counted on for ever, shown modulo 2**16.
    """

    def __init__(self) -> None:
        self.number = 0

    def turn(self, workers: Sequence[Candidate], deficit_bytes: float, now: float, *, is_critical: bool) -> None:
        """Ask as many of *workers* as it takes to cover *deficit_bytes*; all of them when it *is_critical*.

        Args:
            workers: who is present, with what each holds now.
            deficit_bytes: usage over the target; 0 or less asks nobody and takes every request back.
            now: seconds, monotonic.
            is_critical: the capacity is all but reached.
        """
        for worker in workers:
            worker.settle(now)
            if deficit_bytes <= 0:
                worker.request_bytes = 0
        if deficit_bytes <= 0:
            return
        in_flight = sum(max(worker.request_bytes - worker.fallen_bytes, 0) for worker in workers)
        missing = deficit_bytes - in_flight
        free = [worker for worker in workers if not worker.request_bytes and self._may_be_asked(worker, now)]
        if is_critical:
            free, missing = [worker for worker in workers if not worker.request_bytes], float("inf")
        asked = 0
        for worker in sorted(free, key=lambda one: (-one.held_bytes / one.weight, one.asked_at)):
            size = worker.most_bytes if is_critical else min(worker.most_bytes, int(missing) + 1)
            if missing <= 0 or size <= 0:
                continue
            if not asked:
                self.number += 1
            worker.ask(size, self.number, now)
            missing -= size
            asked += 1

    @staticmethod
    def _may_be_asked(worker: Candidate, now: float) -> bool:
        return now - worker.asked_at >= SETTLE_SECONDS and now >= worker.passed_until and worker.most_bytes > 0


def shares(workers: Sequence[Candidate]) -> Mapping[int, float]:
    """Return by slot what each holds over its fair share: 1.0 is fair; 0.0 where nobody holds anything."""
    held = sum(worker.held_bytes for worker in workers)
    weights = sum(worker.weight for worker in workers)
    if not held or not weights:
        return {worker.slot: 0.0 for worker in workers}
    return {worker.slot: worker.held_bytes / (held * worker.weight / weights) for worker in workers}
