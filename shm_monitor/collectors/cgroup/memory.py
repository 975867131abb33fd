"""Memory of one cgroup: what it uses that cannot be dropped, against its own limit, and the swap left (v1 and v2).

Source: Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst (Memory Interface Files).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from shm_monitor.collectors.cgroup.scope import Directory
from shm_monitor.collectors.files import (
    ProcFile,
    difference,
    is_known,
    number_of,
    numbers,
    total,
)


class Reading(NamedTuple):
    """Usage against limit of one level, bytes."""

    usage: float
    limit: float

    @property
    def headroom(self) -> float:
        """What is left, bytes; unknown where either is."""
        return difference(self.limit, self.usage)


_UNLIMITED_BYTES = 2.0**62  # v1 writes the largest number of pages


class LevelV2:
    """One v2 cgroup with a memory controller; *depth* 0 is our own, 1 its parent. Cost: 14 us, with swap 18 us."""

    _STAT = (
        b"\ninactive_file ",
        b"\nactive_file ",
        b"\nfile_dirty ",
        b"\nfile_writeback ",
        b"\nslab_reclaimable ",
    )

    def __init__(self, directory: Directory, *, depth: int) -> None:
        path = directory.path
        self.name, self.depth = directory.name, depth
        self._max = ProcFile(path / "memory.max")
        self._high = ProcFile(path / "memory.high") if (path / "memory.high").exists() else None
        self._current = ProcFile(path / "memory.current")
        self._stat = ProcFile(path / "memory.stat")
        # memory.events counts the children too: ours are of interest, those of our siblings are not. Before Linux 5.2
        # there was no .local and memory.events itself counted only the one cgroup.
        local = path / "memory.events.local"
        self._events = ProcFile(path / "memory.events" if depth == 0 or not local.exists() else local)
        self._swap = _existing(path / "memory.swap.max", path / "memory.swap.current")

    def read(self, fixed_kernel: float = math.inf) -> Reading:  # noqa: ARG002 - v2 says what can be reclaimed
        """Return usage without what the kernel can drop, and the limit; infinite where none is set."""
        limit = number_of(self._max)
        if self._high is not None:
            limit = _smaller(limit, number_of(self._high))
        *pages, slab = numbers(self._stat, self._STAT)
        return _without_droppable(number_of(self._current), limit, pages, slab)

    def swap_left(self) -> float:
        """Return what is left of its own share of the swap, bytes; infinite where it has none of its own."""
        if not self._swap:
            return math.inf
        limit, used = map(number_of, self._swap)
        return max(difference(limit, used), 0.0)

    def events(self) -> tuple[float, float]:
        """Return how often the limit was reached, and how often memory ran out or a process was killed for it."""
        high, reached, oom, killed = numbers(self._events, (b"\nhigh ", b"\nmax ", b"\noom ", b"\noom_kill "))
        return total((high, reached)), total((oom, killed))

    def close(self) -> None:
        """Close the files."""
        for file in (self._max, self._high, self._current, self._stat, self._events, *self._swap):
            if file is not None:
                file.close()


class LevelV1:
    """One v1 memory cgroup; *depth* 0 is our own, 1 its parent. Cost: 12 us, with swap 16 us."""

    _STAT = (b"\ntotal_inactive_file ", b"\ntotal_active_file ", b"\ntotal_dirty ", b"\ntotal_writeback ")

    def __init__(self, directory: Directory, *, depth: int, outermost: bool) -> None:
        path = directory.path
        self.name, self.depth = directory.name, depth
        self._limit = ProcFile(path / "memory.limit_in_bytes")
        self._usage = ProcFile(path / "memory.usage_in_bytes")
        self._kernel = ProcFile(path / "memory.kmem.usage_in_bytes")
        self._stat = ProcFile(path / "memory.stat")
        # A limit on memory and swap together that is as low as the other one is reached first, and counts alone
        # (Linux 6.18 was seen to count neither).
        names = ("memory.failcnt", "memory.memsw.failcnt")
        self._failures = [ProcFile(path / name) for name in names if (path / name).exists()]
        self._oom = ProcFile(path / "memory.oom_control")
        self._both = _existing(path / "memory.memsw.limit_in_bytes", path / "memory.memsw.usage_in_bytes")
        self._has_limit_above = outermost and is_known(self._limit_above())

    def read(self, fixed_kernel: float = math.inf) -> Reading:
        """Return usage without what the kernel can drop, and the limit; infinite where none is set.

        v1 counts what the kernel holds for us, but not how much of that it can drop: at least what is more than
        *fixed_kernel*, all that it holds on this host and cannot.
        """
        limit = number_of(self._limit)
        if self._has_limit_above:
            limit = _smaller(limit, self._limit_above())
        limit = math.inf if limit >= _UNLIMITED_BYTES else limit
        slab = difference(number_of(self._kernel), fixed_kernel)
        return _without_droppable(number_of(self._usage), limit, numbers(self._stat, self._STAT), slab)

    def swap_left(self) -> float:
        """Return what is left of its own share of the swap, bytes; infinite where it has none of its own.

        Its limit is on memory and swap together: with memory full, swap may have the rest of it.
        """
        if not self._both:
            return math.inf
        both, both_used = map(number_of, self._both)
        if both >= _UNLIMITED_BYTES:
            return math.inf
        memory_left = max(difference(number_of(self._limit), number_of(self._usage)), 0.0)
        return max(difference(difference(both, both_used), memory_left), 0.0)

    def _limit_above(self) -> float:
        """Return the least limit of us and all above that our mount does not show; ours is the best known use of it."""
        return numbers(self._stat, (b"\nhierarchical_memory_limit ",))[0]

    def events(self) -> tuple[float, float]:
        """Return how often the limit was reached, and how many processes were killed (unknown before Linux 4.13)."""
        return total(map(number_of, self._failures)), numbers(self._oom, (b"\noom_kill ",))[0]

    def close(self) -> None:
        """Close the files."""
        for file in (self._limit, self._usage, self._kernel, self._stat, *self._failures, self._oom, *self._both):
            file.close()


Level = LevelV1 | LevelV2


def _existing(*paths: Path) -> list[ProcFile]:
    """Return all of *paths* as files to read, or nothing when one of them is not there."""
    return [ProcFile(path) for path in paths] if all(path.exists() for path in paths) else []


def _without_droppable(current: float, limit: float, pages: Sequence[float], slab: float) -> Reading:
    """Return usage = *current* less what the kernel can drop at once: clean file pages and reclaimable *slab*.

    Dirty and unevictable pages stay, and so does shmem: it is on the anon lists.

    Args:
        current: all that is charged, bytes.
        limit: returned as it is.
        pages: inactive, active, dirty and written-back file pages, bytes.
        slab: dentries, inodes and the like, bytes; unknown or negative counts as none.
    """
    if not is_known(difference(limit, current)):
        return Reading(current, limit)
    inactive, active, dirty, writeback = pages
    cache = difference(total((inactive, active)), total((dirty, writeback)))
    if not is_known(cache):  # before Linux 4.2 nothing says what is dirty: what is inactive mostly is not
        cache = inactive
    # memory.stat lags a little: a cache just dropped may still be larger than the whole.
    usage = difference(current, max(cache, 0.0) + (slab if slab > 0 else 0.0))
    return Reading(max(usage, 0.0), limit)


def _smaller(limit: float, other: float) -> float:
    """Return the smaller of two limits, or the one that is unknown: it might be."""
    return limit if not is_known(limit) or other >= limit else other


def levels(directories: Sequence[Directory]) -> list[Level]:
    """Return the levels of *directories* (outermost first) that can be read and that bind a process in the last one."""
    last = len(directories) - 1
    found: list[Level] = []
    for index, directory in enumerate(directories):
        if directory.version == 2:
            level: Level = LevelV2(directory, depth=last - index)
        elif index == last or _binds_children(directory.path):
            level = LevelV1(directory, depth=last - index, outermost=not found)
        else:
            continue
        if is_known(level.read().headroom):
            found.append(level)
        else:
            level.close()
    return found


def _binds_children(path: Path) -> bool:
    """Say whether a v1 cgroup counts its children (always, since Linux 5.11)."""
    file = ProcFile(path / "memory.use_hierarchy")
    flag = number_of(file)
    file.close()
    return flag != 0
