"""What a reader that does not require a sampler hands out while there is none: the same kinds, with nothing known."""

from __future__ import annotations

import math
import mmap
from typing import TYPE_CHECKING

from shm_monitor.segment import address
from shm_monitor.worker.explanation import Explanation
from shm_monitor.worker.history import History
from shm_monitor.worker.limits import Headroom

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shm_monitor.errors import SegmentError
    from shm_monitor.snapshot.structs import Snapshot


_bytes = mmap.mmap(-1, mmap.PAGESIZE)  # one that is zero, and one that is not
_bytes[1] = 1


def flag_address(*, is_set: bool) -> int:
    """Return the address of a byte that is zero, or not where *is_set*; nobody ever changes it."""
    return address.flag_address(_bytes, int(is_set))


def explanation(error: SegmentError) -> Explanation:
    """Return one that says "no sampler", and why: *error*."""
    return Explanation(
        should_prune=False, level="ok", timestamp=math.nan, stale=True, reasons=(), no_sampler=str(error)
    )


def snapshot(error: SegmentError) -> Snapshot:
    """Return an empty one, marked stale: sequence 0, every reading None, and why under ``unavailable["sampler"]``."""
    from shm_monitor.snapshot.structs import Snapshot

    return Snapshot(
        name=error.name,
        sequence=0,
        epoch=0,
        sampled_at=math.nan,
        age_seconds=math.nan,
        interval_seconds=math.nan,
        stale=True,
        degraded=False,
        level="ok",
        should_prune=False,
        unavailable={"sampler": str(error)},
    )


def headroom() -> Headroom:
    """Return one without a limit."""
    return Headroom("", None, None, "")


def history(metrics: Sequence[str] | None) -> History:
    """Return one without a sample: an empty column for each of *metrics*."""
    return History([], [], {name: [] for name in metrics or ()})
