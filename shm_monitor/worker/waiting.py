"""Wait until the verdict on the watched limits changes: futex(2) on the read-only mapping, where the kernel has it."""

from __future__ import annotations

import math
import time
from types import BuiltinFunctionType
from typing import TYPE_CHECKING

from shm_monitor.errors import MonitorError, SegmentError
from shm_monitor.forks import importing
from shm_monitor.segment import futex

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shm_monitor.worker.attachment import Attachment

# A calm sampler that dies wakes nobody: the kernel wakes only where bit 31 is set. So wait in slices.
SLICE_SECONDS = 1.0
POLL_SECONDS = 0.02
ASYNC_POLL_SECONDS = 0.05


def slices(timeout: float | None, longest: float) -> Iterator[float]:
    """Yield how many seconds to wait before each further look, *longest* at most and *timeout* in all; 0 at the end."""
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    left = math.inf
    while left > 0:
        left = max(deadline - time.monotonic(), 0.0)
        yield min(left, longest)


def wait(attachment: Attachment, timeout: float | None) -> bool:
    """Return True once the level of *attachment* differs from now, False after *timeout* seconds."""
    before = attachment.level()
    for seconds in slices(timeout, SLICE_SECONDS):
        words = _words(attachment)
        if attachment.level() != before:
            return True
        _sleep(words, seconds)
    return False


async def changed(attachment: Attachment, timeout: float | None) -> bool:
    """Do the same in an event loop, without a thread.

    Raises:
        MonitorError: the loop is not asyncio's.
    """
    with importing:
        import asyncio  # 10 MB, which a worker without an event loop does not pay

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise MonitorError(
            "changed() and calm_async() work in the event loop of asyncio, and none runs here; "
            "under trio try: await trio.to_thread.run_sync(reader.wait, seconds)"
        ) from None
    before = attachment.level()
    for seconds in slices(timeout, ASYNC_POLL_SECONDS):
        if attachment.level() != before:
            return True
        await asyncio.sleep(seconds)
    return False


def _words(attachment: Attachment) -> Sequence[tuple[int, int]]:
    """Return address and word of each watched flag, read before the level is: a change in between ends the wait."""
    try:
        return attachment.flags()
    except SegmentError:
        return []


def _sleep(words: Sequence[tuple[int, int]], seconds: float) -> None:
    """Sleep until the one watched flag is woken; several flags, or none, are polled.

    So is one where gevent or eventlet has put its own in the place of ``time.sleep``: a futex would stop all of theirs.
    """
    if futex.HAS_FUTEX and len(words) == 1 and isinstance(time.sleep, BuiltinFunctionType):
        futex.wait(words[0][0], words[0][1], seconds)
    else:
        time.sleep(min(seconds, POLL_SECONDS))
