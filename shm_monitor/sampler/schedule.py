"""When the next sample is due: at start + n intervals, whatever the last ones took; of memory alone also between."""

from __future__ import annotations

import math

BETWEEN_SECONDS_MIN = 0.02  # between two looks at memory: 50 a second are 2 % of a core at 0.4 ms each


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

    def between_ns(self, now_ns: int, wait_seconds: float) -> int:
        """Return when memory alone is due before the next turn, *wait_seconds* after *now_ns*; 0 for not before it.

        At the rate of its rise a turn may be too late; as in earlyoom, the headroom says when to look again.
        """
        due_ns = now_ns + int(max(wait_seconds, BETWEEN_SECONDS_MIN) * 1e9) if math.isfinite(wait_seconds) else 0
        return due_ns if due_ns + int(BETWEEN_SECONDS_MIN * 1e9) <= self.due_ns else 0

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
