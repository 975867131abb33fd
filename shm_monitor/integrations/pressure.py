"""What every integration asks: is it pressed, at which level from; and why, once per episode."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from shm_monitor.errors import MonitorError
from shm_monitor.schema import Level
from shm_monitor.worker.attaching import attach
from shm_monitor.worker.waiting import slices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shm_monitor.worker.reader import Reader

_log = logging.getLogger("shm_monitor")

LOOK_SECONDS = 0.5  # a wait looks at least so often whether it is over


class Pressure:
    """Whether the watched limits press, from a level on. Pickles; each process attaches for itself.

    Attributes:
        reader: behind it.
        on: the level from which on it counts as pressed.
    """

    def __init__(
        self, reader: Reader | None = None, *, on: Level = Level.PRUNE, watch: Sequence[str] = ("memory",)
    ) -> None:
        """Ask *reader*; None asks the default sampler, as ``attach()`` does, which may come later."""
        self.reader = attach(timeout=0.0, required=False, watch=watch) if reader is None else reader
        self.on = Level(on)
        self._told = False

    def __call__(self, doing: str = "") -> bool:
        """Return whether it is pressed; *doing* is what the caller does about it, for the log line of the episode."""
        try:
            pressed = self.reader.should_prune() if self.on is Level.PRUNE else self.reader.level() >= self.on
        except MonitorError as error:  # on_stale="raise"
            pressed = False
            self._tell(f"not asked: {error}")
            return pressed
        if not pressed:
            self._told = False
        elif doing:
            self._tell(f"{doing}; {self.why()}")
        return pressed

    def wait(self, max_wait: float, *, is_over: Callable[[], bool] = lambda: False, doing: str = "waiting") -> bool:
        """Block until it is calm, *is_over*, or *max_wait* seconds have passed; return whether it is calm."""
        for seconds in slices(max_wait, LOOK_SECONDS):
            if not self(doing):
                return True
            if is_over():
                return False
            self.reader.wait(seconds)
        return False

    def level(self) -> Level:
        """Return the level of the watched limits; OK where it cannot be asked."""
        try:
            return self.reader.level()
        except MonitorError:
            return Level.OK

    def why(self) -> str:
        """Return the reasons as text, or why there are none."""
        try:
            return str(self.reader.explain())
        except MonitorError as error:
            return str(error)

    def _tell(self, text: str) -> None:
        if not self._told:
            self._told = True
            _log.warning("%s", text)


class Pause:
    """Waits for calm once per episode, at most *max_pause* seconds; what goes on under pressure is not paused again.

    Attributes:
        count: how often it has waited, and seconds how long in all.
    """

    def __init__(self, pressure: Pressure, max_pause: float, *, doing: str) -> None:
        """Wait while *pressure* holds; *doing* is for the log line of the episode."""
        self._pressure = pressure
        self._max_pause = max_pause
        self._doing = doing
        self._has_waited = False  # in this episode
        self.count = 0
        self.seconds = 0.0

    def __call__(self, first: Callable[[], object] = lambda: None) -> None:
        """Do *first* and wait, if it presses and this episode has not been waited for."""
        if not self._pressure(self._doing):
            self._has_waited = False
        elif not self._has_waited:
            self._has_waited = True
            first()
            began = time.monotonic()
            self._pressure.wait(self._max_pause)
            self.count += 1
            self.seconds += time.monotonic() - began
