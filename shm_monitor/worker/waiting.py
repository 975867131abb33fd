"""Wait until the verdict on the watched limits changes: futex(2) on the read-only mapping, where the kernel has it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from shm_monitor.errors import SegmentError
from shm_monitor.segment import futex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shm_monitor.worker.attachment import Attachment

# A calm sampler that dies wakes nobody: the kernel wakes only where bit 31 is set. So wait in slices.
SLICE_SECONDS = 1.0
POLL_SECONDS = 0.02
ASYNC_POLL_SECONDS = 0.05


def wait(attachment: Attachment, timeout: float | None) -> bool:
    """Return True once the level of *attachment* differs from now, False after *timeout* seconds."""
    before = attachment.level()
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        words = _words(attachment)
        if attachment.level() != before:
            return True
        left = SLICE_SECONDS if deadline is None else min(deadline - time.monotonic(), SLICE_SECONDS)
        if left <= 0:
            return False
        _sleep(words, left)


async def changed(attachment: Attachment, timeout: float | None) -> bool:
    """Do the same in an event loop, without a thread."""
    before = attachment.level()
    deadline = None if timeout is None else time.monotonic() + timeout
    while attachment.level() == before:
        left = ASYNC_POLL_SECONDS if deadline is None else min(deadline - time.monotonic(), ASYNC_POLL_SECONDS)
        if left <= 0:
            return False
        await asyncio.sleep(left)
    return True


def _words(attachment: Attachment) -> Sequence[tuple[int, int]]:
    """Return address and word of each watched flag, read before the level is: a change in between ends the wait."""
    try:
        return attachment.flags()
    except SegmentError:
        return []


def _sleep(words: Sequence[tuple[int, int]], seconds: float) -> None:
    """Sleep until the one watched flag is woken; several flags, or none, are polled."""
    if futex.HAS_FUTEX and len(words) == 1:
        futex.wait(words[0][0], words[0][1], seconds)
    else:
        time.sleep(min(seconds, POLL_SECONDS))
