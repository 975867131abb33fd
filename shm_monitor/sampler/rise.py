"""How fast usage rises while some of it is given back again."""

from __future__ import annotations

import math

_MEMORY_SECONDS = 2.0  # after which a rate counts for a third


class Rise:
    """The rate at which usage rises, learned from the turns in which it did.

    Attributes:
        rate: bytes per second; 0 before anything rose.
    """

    def __init__(self) -> None:
        self.rate = 0.0
        self._place = -1
        self._last = math.nan
        self._at = math.nan

    def turn(self, over_bytes: float, place: int, now: float) -> None:
        """Learn from one reading.

        Args:
            over_bytes: usage less a target that stays; NaN where it is not known.
            place: whose it is; of another one nothing can be learned yet.
            now: seconds, monotonic.
        """
        rose, took = over_bytes - self._last, now - self._at
        if place == self._place and took > 0 and rose >= 0:  # a fall is what somebody gave back
            self.rate += (1 - math.exp(-took / _MEMORY_SECONDS)) * (rose / took - self.rate)
        self._place, self._last, self._at = place, over_bytes, now
