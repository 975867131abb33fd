"""When the next sample is due: at start + n intervals, whatever the last ones took."""

from __future__ import annotations


class Schedule:
    """Turns without drift. A late turn is taken at once; those that it swallowed are counted, never caught up.

    A turn that comes late by half an interval or more is the next one: two samples are never closer than that, since
    a rate over a moment is noise (1 ms after a stall, one tick of the kernel's made 100 % CPU).

    Attributes:
        turn: the number of the turn that is due next, from 0.
        missed_turns_count: turns that were skipped.
    """

    def __init__(self, start_ns: int, interval_ns: int) -> None:
        """Make turn n due at *start_ns* + n * *interval_ns*."""
        self.turn = 0
        self.missed_turns_count = 0
        self._start_ns = start_ns
        self._interval_ns = interval_ns

    @property
    def due_ns(self) -> int:
        """When the next turn is due."""
        return self._start_ns + self.turn * self._interval_ns

    def take_turn(self, now_ns: int) -> None:
        """Go on to the turn that follows a sample which begins at *now_ns*."""
        nearest = (now_ns - self._start_ns + self._interval_ns // 2) // self._interval_ns
        taken = max(nearest, self.turn)
        self.missed_turns_count += taken - self.turn
        self.turn = taken + 1
