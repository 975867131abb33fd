"""What a reader that does not require a sampler returns while there is none: the same kinds, with nothing known.

Each function stands in for the method of ``Reader`` of its name.
"""

from __future__ import annotations

import math
import mmap
from typing import TYPE_CHECKING

from shm_monitor.forks import importing
from shm_monitor.segment import address
from shm_monitor.worker.explanation import Explanation
from shm_monitor.worker.history import History
from shm_monitor.worker.limits import Headroom

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shm_monitor.errors import SegmentError
    from shm_monitor.snapshot.structs import Snapshot
    from shm_monitor.worker.reader import Reader


_bytes = mmap.mmap(-1, mmap.PAGESIZE)  # one that is zero, and one that is not
_bytes[1] = 1


def flag_address(reader: Reader, _: SegmentError) -> int:
    """Return the address of a byte that says what ``on_stale`` of *reader* stands for; nobody ever changes it."""
    return address.flag_address(_bytes, int(reader.on_stale in {"always", "raise"}))


def explain(_: Reader, error: SegmentError) -> Explanation:
    """Return an explanation that says "no sampler", and why: *error*."""
    return Explanation(
        should_prune=False, level="ok", timestamp=math.nan, stale=True, reasons=(), no_sampler=str(error)
    )


def snapshot(_: Reader, error: SegmentError) -> Snapshot:
    """Return an empty snapshot, marked stale: every reading is None, and ``unavailable["sampler"]`` says why."""
    with importing:
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


def headroom(_: Reader, __: SegmentError) -> Headroom:
    """Return a headroom without a limit."""
    return Headroom("", None, None, "")


def history(_: Reader, __: SegmentError, metrics: Sequence[str] | None = None, **___: object) -> History:
    """Return a history without a sample: an empty column for each of *metrics*."""
    return History([], [], {name: [] for name in metrics or ()})


def age(_: Reader, __: SegmentError) -> float:
    """Return that no sampling loop ever turned."""
    return math.inf
