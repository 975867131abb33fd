"""Wait until the pressure is over, with a limit to it."""

from __future__ import annotations

import functools

from shm_monitor.forks import importing
from shm_monitor.light import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec, TypeVar

    from shm_monitor.worker.reader import Reader

    P = ParamSpec("P")
    R = TypeVar("R")


# A wait ends when the level changes: if it did between our question and the wait, nobody wakes us.
SLICE_SECONDS = 0.5


def wait_for_calm(reader: Reader, max_wait: float | None) -> bool:
    """Wait until *reader* says that nothing presses, at most *max_wait* seconds; return whether it does."""
    if not reader.should_prune():
        return True
    with importing:
        from shm_monitor.worker.waiting import slices

    for seconds in slices(max_wait, SLICE_SECONDS):
        reader.wait(seconds)
        if not reader.should_prune():
            return True
    return False


async def wait_for_calm_async(reader: Reader, max_wait: float | None) -> bool:
    """Do the same in an event loop."""
    if not reader.should_prune():
        return True
    with importing:
        from shm_monitor.worker.waiting import slices

    for seconds in slices(max_wait, SLICE_SECONDS):
        await reader.changed(seconds)
        if not reader.should_prune():
            return True
    return False


def paused_while_pressed(reader: Reader, max_wait: float | None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return the decorator of ``Reader.paused_while_pressed``."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def paused(*args: P.args, **kwargs: P.kwargs) -> R:
            wait_for_calm(reader, max_wait)
            return function(*args, **kwargs)

        return paused

    return decorate
