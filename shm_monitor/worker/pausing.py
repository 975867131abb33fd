"""Wait until the pressure is over, with a limit to it."""

from __future__ import annotations

import functools
import time

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
    deadline = None if max_wait is None else time.monotonic() + max_wait
    while reader.should_prune():
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return False
        reader.wait(SLICE_SECONDS if left is None else min(left, SLICE_SECONDS))
    return True


async def wait_for_calm_async(reader: Reader, max_wait: float | None) -> bool:
    """Do the same in an event loop."""
    deadline = None if max_wait is None else time.monotonic() + max_wait
    while reader.should_prune():
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return False
        await reader.changed(SLICE_SECONDS if left is None else min(left, SLICE_SECONDS))
    return True


def paused_while_pressed(reader: Reader, max_wait: float | None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return the decorator of ``Reader.paused_while_pressed``."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def paused(*args: P.args, **kwargs: P.kwargs) -> R:
            wait_for_calm(reader, max_wait)
            return function(*args, **kwargs)

        return paused

    return decorate
