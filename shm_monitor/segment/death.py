"""How a sampler ended, as the segment that it left says."""

from __future__ import annotations

from shm_monitor.errors import SegmentError
from shm_monitor.schema import Level
from shm_monitor.segment.flags import level_of
from shm_monitor.segment.status import STALE, state_of
from shm_monitor.segment.view import View


def ended_short_of_memory(view: View) -> bool:
    """Say whether its sampler ended without stopping, and memory was at ``WARN`` or above: the kernel kept the flags.

    That is what a kill for want of memory leaves; nobody but the parent could tell that from another death.

    False where its tables cannot be read.
    """
    if state_of(view) != STALE:
        return False
    try:
        limits = view.schema.limits
    except SegmentError:
        return False
    words = [view.flag(1 + place) for place, limit in enumerate(limits) if limit.name.partition(":")[0] == "memory"]
    return any(level_of(word) >= Level.WARN for word in words)


def last_was_short_of_memory(name: str) -> bool:
    """Say the same of the last sampler of *name*; False where it has left nothing."""
    try:
        return ended_short_of_memory(View(name))
    except SegmentError:
        return False
