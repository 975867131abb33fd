"""When the next sample is due: at start + n intervals, whatever the last ones took."""

from __future__ import annotations


class Schedule:
    """Turns without drift. A late turn is taken at once; those that it swallowed are counted, never caught up.

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

    def took_turn(self, now_ns: int) -> None:
        """Go on to the newest turn that is due by *now_ns*, or to the next one."""
        self.turn += 1
        late = (now_ns - self.due_ns) // self._interval_ns
        if late > 0:
            self.turn += late
            self.missed_turns_count += late
