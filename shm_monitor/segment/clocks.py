"""Whether this process and the sampler count monotonic time from one moment: in another time namespace they do not.

The wall clock is the same in all namespaces (time_namespaces(7)), and a sample carries both, so the difference shows.
It shows as well when the wall clock was set, or the machine slept, since the newest sample: that alone proves nothing
of a sampler that is dead.
"""

from __future__ import annotations

import os
import time

from shm_monitor.errors import SegmentError
from shm_monitor.light import TYPE_CHECKING

if TYPE_CHECKING:
    from shm_monitor.segment.view import View

TOLERANCE_NS = 5 * 10**9  # a sample is written at once after its clocks are read; a process may be paused in between
_FIRST_NAMESPACE = 0xEFFFFFFA  # linux/include/linux/proc_ns.h, PROC_TIME_INIT_INO: the one that the kernel starts with


def difference_ns(view: View) -> int:
    """Return how far this process's monotonic clock is ahead of the sampler's; 0 for what is within the tolerance."""
    try:
        sample = view.sample()
    except (SegmentError, OSError):  # no descriptor left to load what reads a schema
        return 0
    ahead = (time.monotonic_ns() - time.time_ns()) - (sample.mono_ns - sample.realtime_ns)
    return ahead if abs(ahead) > TOLERANCE_NS else 0


def is_in_another_namespace() -> bool:
    """Say whether this process is in a time namespace that somebody made; false where there are none."""
    try:
        return os.stat("/proc/self/ns/time").st_ino != _FIRST_NAMESPACE
    except OSError:
        return False


def samplers_now_ns(view: View, *, alive: bool = False) -> int:
    """Return what the sampler's monotonic clock says now, as far as it can be known.

    Args:
        view: of its segment.
        alive: the kernel says that it lives, so its newest sample is of now and what its clocks say is, too.
    """
    now = time.monotonic_ns()
    ahead = difference_ns(view)
    return now - ahead if ahead and (alive or is_in_another_namespace()) else now
