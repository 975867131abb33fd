"""A sampler that died while memory was short was most likely killed for that: its last verdict goes on for a while.

A calm answer at that moment would have workers grow into the very memory that has just run out.
"""

from __future__ import annotations

import time

from shm_monitor.light import TYPE_CHECKING
from shm_monitor.segment import layout
from shm_monitor.segment.death import ended_short_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from shm_monitor.segment.view import View


class GracePeriod:
    """What one reader knows of the last death: whose it was, and until when its verdict goes on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Know of none; *clock* gives seconds."""
        self._clock = clock
        self._death: object = None
        self._until = 0.0

    def lasts(self, view: View) -> bool:
        """Say whether the verdict of the dead sampler of *view* goes on: one observation period from the first call.

        The kernel says that a sampler died, not when; the first look at it is as near as a reader comes.
        """
        death = (view.identity, view.word(layout.INCARNATION_OFFSET))
        if death != self._death:
            self._death = death
            short = ended_short_of_memory(view)
            self._until = self._clock() + view.word(layout.PERIOD_OFFSET) * 1e-9 if short else 0.0
        return self._clock() < self._until
