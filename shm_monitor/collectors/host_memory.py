"""Memory of the host: what it has, what it can give, and what its kernel holds and cannot give back.

Source: proc_meminfo(5); Documentation/admin-guide/mm/hugetlbpage.rst; OpenZFS module parameters, ``zfs_arc_min``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from shm_monitor.collectors.cgroup.memory import Reading
from shm_monitor.collectors.files import NOT_YET_SAMPLED, ProcFile, difference, is_known, numbers, total

# The kernel kills for the host when nothing is left to reclaim: MemAvailable is then a few percent at most.
_SHORT = 0.9

_KEYS = (
    b"\nMemTotal:",
    b"\nMemAvailable:",
    b"\nCached:",
    b"\nSReclaimable:",
    b"\nSwapTotal:",
    b"\nSwapFree:",
    b"\nHugetlb:",
    b"\nMemFree:",
    b"\nBuffers:",
    b"\nAnonPages:",
)
_ARC_KEYS = tuple(b"\n" + name.ljust(31) + b" 4    " for name in (b"size", b"c_min"))  # "%-31s %-4d value"


class HostMemory(NamedTuple):
    """One look at the memory of the host, bytes; none is negative, and any may be unknown.

    Args:
        total: all memory.
        capacity: what processes may use: all but the huge pages that were set aside.
        available: what the host can give without swapping.
        cached: page cache and reclaimable slab.
        swap_total: swap space.
        swap_used: what is used of it.
        swap_free: what is left of it.
        fixed_kernel: the most that the kernel may hold and cannot give back, for whichever cgroup.
    """

    total: float
    capacity: float
    available: float
    cached: float
    swap_total: float
    swap_used: float
    swap_free: float
    fixed_kernel: float

    @property
    def reading(self) -> Reading:
        """What is used, against the capacity."""
        return Reading(difference(self.capacity, self.available), self.capacity)


class Meminfo:
    """Reads /proc/meminfo, and what ZFS would give back. Cost: 17 us."""

    def __init__(self, proc: str) -> None:
        """Name the files below *proc*; each is opened by the first read."""
        self._file = ProcFile(Path(proc, "meminfo"))
        self._arc = ProcFile(Path(proc, "spl/kstat/zfs/arcstats"))
        self._is_kernels = _device(f"{proc}/meminfo") == _device(proc)

    def read(self) -> HostMemory:
        """Return the memory of the host as it is now."""
        in_bytes = [value * 1024 if is_known(value) else value for value in numbers(self._file, _KEYS)]
        size, available, cached, slab, swap, swap_free, huge, free, buffers, anonymous = in_bytes
        capacity = _least_zero(difference(size, _or_zero(huge)))  # kernels before 4.16 do not list Hugetlb
        # lxcfs was seen to write a MemAvailable above MemTotal.
        available = min(total((available, self._arc_above_least())), capacity) if is_known(capacity) else capacity
        pages = total((free, cached, buffers, anonymous, slab, _or_zero(huge)))
        return HostMemory(
            total=size,
            capacity=capacity,
            available=available,
            cached=total((cached, slab)),
            swap_total=swap,
            swap_used=_least_zero(difference(swap, swap_free)),
            swap_free=swap_free,
            fixed_kernel=_least_zero(difference(size, pages)),
        )

    def _arc_above_least(self) -> float:
        """Return what the cache of ZFS gives back when memory is short; MemAvailable does not count it.

        lxcfs writes a meminfo of the container, which does not hold the cache of its host.
        """
        if not self._is_kernels:
            return 0.0
        return max(_or_zero(difference(*numbers(self._arc, _ARC_KEYS))), 0.0)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._arc.close()


class HostKills:
    """OOM kills of the host itself, since the first look.

    /proc/vmstat counts those within other cgroups too, which say nothing of us: so only those count that came while the
    host was short of memory. It may no longer be at the sample after a kill. Of the kills before the first look nobody
    knows that: with them, a sampler that takes over would take those of others for news.
    """

    def __init__(self) -> None:
        self._before = NOT_YET_SAMPLED
        self._was_short = False
        self._others = 0.0

    def count(self, kills: float, host: Reading) -> float:
        """Return *kills*, the counter of the kernel, less those before the first call and those of others since."""
        short = not host.usage < _SHORT * host.limit
        if is_known(kills):
            if not is_known(self._before):
                self._others = kills
            elif not (short or self._was_short):
                self._others += kills - self._before
            self._before = kills
        self._was_short = short
        return difference(kills, self._others)


def _or_zero(value: float) -> float:
    return value if is_known(value) else 0.0


def _least_zero(value: float) -> float:
    return max(value, 0.0) if is_known(value) else value


def _device(path: str) -> int:
    """Return the number of the file system that holds *path*; a file that was mounted over has another."""
    try:
        return os.stat(path).st_dev
    except OSError:
        return 0
