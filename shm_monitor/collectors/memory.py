"""Memory: of each level (the host and every cgroup above us), of the one that ends first, swap and /dev/shm."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from shm_monitor.collectors.base import Array
from shm_monitor.collectors.cgroup.memory import Level, Reading, levels
from shm_monitor.collectors.cgroup.scope import Cgroups, Scope
from shm_monitor.collectors.files import (
    DISABLED,
    ERROR,
    NOT_SUPPORTED,
    ProcFile,
    Rate,
    Roots,
    hosts_file,
    is_known,
    numbers,
    percent,
    total,
    why,
)
from shm_monitor.collectors.host_memory import HostKills, Meminfo
from shm_monitor.schema import Metric

_MEMINFO = "/proc/meminfo"
_VMSTAT = "/proc/vmstat"
_AVAILABLE = f"{_MEMINFO} MemAvailable, with ZFS also /proc/spl/kstat/zfs/arcstats size - c_min"
_EVENTS = "memory.events high + max (v2), memory.failcnt + memory.memsw.failcnt (v1)"
_OOMS = "memory.events oom + oom_kill (v2), memory.oom_control oom_kill (v1), /proc/vmstat oom_kill (host)"
_SWAP = "memory.swap.max - memory.swap.current (v2), memory.memsw.* (v1), /proc/meminfo SwapFree"
_LEVEL = "level of the smallest headroom: /proc/meminfo, memory.current/max/high/stat (v2), memory.*_in_bytes (v1)"


def _bytes(field: str, text: str, source: str, *, rolled: bool = False) -> Metric:
    return Metric("memory", field, "bytes", text, source, integer=True, rolled=rolled)


METRICS = (
    _bytes(
        "usage_bytes", "Memory in use that cannot simply be dropped, at the level named by scope.", _LEVEL, rolled=True
    ),
    _bytes("capacity_bytes", "What may be used at that level: its limit, or all memory of the host.", _LEVEL),
    _bytes("available_bytes", "What is left at that level: capacity less usage.", _LEVEL),
    Metric("memory", "usage_percent", "percent", "Usage in percent of capacity.", _LEVEL, rolled=True),
    Metric("memory", "scope", "index", "Which entry of facts.scopes has the smallest headroom.", _LEVEL, integer=True),
    _bytes("host_total_bytes", "All memory of the host, with huge pages.", f"{_MEMINFO} MemTotal"),
    _bytes(
        "host_available_bytes",
        "What the host can give without swapping.",
        _AVAILABLE,
    ),
    _bytes("host_cached_bytes", "Page cache and reclaimable slab of the host.", f"{_MEMINFO} Cached + SReclaimable"),
    _bytes("swap_total_bytes", "Swap space of the host.", f"{_MEMINFO} SwapTotal"),
    _bytes("swap_used_bytes", "Swap space of the host in use.", f"{_MEMINFO} SwapTotal - SwapFree"),
    Metric("memory", "swap_in_bytes_per_second", "bytes_per_second", "Read from swap.", f"{_VMSTAT} pswpin"),
    Metric("memory", "swap_out_bytes_per_second", "bytes_per_second", "Written to swap.", f"{_VMSTAT} pswpout"),
    _bytes("shm_total_bytes", "Size of /dev/shm.", "statvfs(3) of /dev/shm"),
    _bytes("shm_used_bytes", "Used in /dev/shm; it counts as memory in use.", "statvfs(3) of /dev/shm"),
    Metric(
        "memory",
        "reclaim_events_count",
        "count",
        "How often a limit on us was reached, since the cgroup was made; page cache alone can reach it.",
        _EVENTS,
        integer=True,
    ),
    Metric(
        "memory",
        "oom_events_count",
        "count",
        "How often the kernel ran out of memory within a limit on us or killed one of us (host scope: anyone, while "
        "the host itself was short of memory, since the sampler began).",
        _OOMS,
        integer=True,
    ),
)


def level_metrics(level: str) -> tuple[Metric, ...]:
    """Return the metrics of one *level*: ``host``, ``0`` (our own cgroup), ``1`` (its parent) and so on."""

    def metric(field: str, text: str, source: str, unit: str = "bytes", *, rolled: bool = False) -> Metric:
        return Metric("memory", field, unit, text, source, instance=level, integer=True, rolled=rolled)

    count = "count"
    return (
        metric("usage_bytes", "Memory in use at this level that cannot simply be dropped.", _LEVEL, rolled=True),
        metric("capacity_bytes", "What may be used at this level; disabled where nothing limits it.", _LEVEL),
        metric("scope", "Which entry of facts.scopes this level is.", _LEVEL, "index"),
        metric("reclaim_events_count", "How often the limit of this level was reached.", _EVENTS, count),
        metric("oom_events_count", "How often the kernel ran out of memory within this level.", _OOMS, count),
        metric("swap_available_bytes", "Swap that is left to this level.", _SWAP),
    )


LEVEL_WIDTH = len(level_metrics("host"))

_VMSTAT_KEYS = (b"\npswpin ", b"\npswpout ", b"\noom_kill ")


class MemoryCollector:
    """Memory of each level and of the tightest, of the host, swap and /dev/shm.

    The levels have their places for life, by how far out they are: after a move to another cgroup ``0`` is that one,
    and the outermost place has the tightest of all that are farther out.

    Source: /proc/meminfo, /proc/vmstat, memory controllers, statvfs(3).
    Cost: 85 us, with 2 cgroups without a limit.
    """

    name = "memory"
    threaded = False
    interval_seconds: float | None = None

    def __init__(
        self,
        scope: Scope,
        roots: Roots,
        *,
        shm: str = "/dev/shm",  # noqa: S108  (read only: its size)
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Find the levels. Limits and usage are read again at each sample, the levels only when we are moved.

        Raises:
            ConfigError: *scope* names a process or cgroup that cannot be seen.
        """
        self._clock = clock
        self._shm = shm
        self._cgroups = Cgroups(scope, roots)
        self._levels: list[Level] = levels(self._cgroups.of("memory"))
        self._hidden = not hosts_file(roots, "meminfo")
        self._meminfo = Meminfo(roots.proc)
        self._vmstat = ProcFile(Path(roots.proc, "vmstat"))
        self._swap_in, self._swap_out = Rate(), Rate()
        self._host_kills = HostKills()
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._depths = sorted(level.depth for level in self._levels)
        self.metrics: Sequence[Metric] = (
            *METRICS,
            *(metric for level in ("host", *map(str, self._depths)) for metric in level_metrics(level)),
        )
        self.facts: Mapping[str, list[str]] = {"scopes": ["host", *(level.name for level in self._levels)]}

    def collect(self, out: Array) -> None:
        """Write the readings into *out*, shape (16 + 6 x levels,), in the order of ``metrics``."""
        self.collect_between(out)
        now = self._clock()
        pages = numbers(self._vmstat, _VMSTAT_KEYS[:2])
        rates = [rate(count, now) for rate, count in zip((self._swap_in, self._swap_out), pages, strict=True)]
        out[10:12] = [rate * self._page_bytes if is_known(rate) else rate for rate in rates]
        out[12:14] = _space(self._shm)

    def collect_between(self, out: Array) -> None:
        """Write into *out* what changes from one moment to the next, and leave the rest: rates and /dev/shm."""
        if self._cgroups.changed():
            self._close_levels()
            self._levels = levels(self._cgroups.of("memory"))
        host = self._meminfo.read()
        kills = self._host_kills.count(numbers(self._vmstat, _VMSTAT_KEYS[2:])[0], host.reading)
        swap_left = host.swap_free if host.swap_total > 0 else NOT_SUPPORTED
        rows = [_LevelRow(host.reading, "host", NOT_SUPPORTED, kills, swap_left)]
        rows += [_level_row(level, swap_left, host.fixed_kernel) for level in self._levels]
        out[:5] = self._tightest(rows)
        out[5:10] = (
            host.total,
            host.available,
            host.cached,
            host.swap_total,
            host.swap_used,
        )
        out[14:16] = _events(rows)
        out[16:] = [value for row in self._placed(rows) for value in self._values(row)]

    def _tightest(self, rows: Sequence[_LevelRow]) -> tuple[float, float, float, float, float]:
        """Return usage, capacity, what is left, percent and scope of the level with the smallest headroom."""
        if self._hidden and any(row.reading.limit < math.inf for row in rows[1:]):
            rows = rows[1:]
        tightest = rows[0]
        for row in rows[1:]:
            if not is_known(row.reading.headroom):
                tightest = row
                break
            if row.reading.headroom < tightest.reading.headroom:
                tightest = row
        left = tightest.reading.headroom
        if not is_known(left):
            return left, left, left, left, left
        return (*tightest.reading, max(0.0, left), percent(*tightest.reading), self._scope(tightest.name))

    def _placed(self, rows: Sequence[_LevelRow]) -> list[_LevelRow]:
        """Return a row for each place: the host, then from our own cgroup outward."""
        found = {level.depth: row for level, row in zip(self._levels, rows[1:], strict=True)}
        if not self._depths:
            return [rows[0]]
        last = self._depths[-1]
        outer = [row for depth, row in found.items() if depth > last and is_known(row.reading.headroom)]
        if outer:
            found[last] = min([*outer, found.get(last, outer[0])], key=lambda row: row.reading.headroom)
        return [rows[0], *(found.get(depth, _ABSENT) for depth in self._depths)]

    def _values(self, row: _LevelRow) -> tuple[float, ...]:
        """Return the numbers of *row* in the order of ``level_metrics``."""
        usage, limit = row.reading
        if not is_known(limit):
            usage = limit  # of a usage without a capacity, nothing limits it
        capacity = DISABLED if limit == math.inf else limit
        return usage, capacity, self._scope(row.name), row.reclaims, row.ooms, row.swap_left

    def _scope(self, name: str) -> float:
        scopes = self.facts["scopes"]
        return float(scopes.index(name)) if name in scopes else ERROR

    def _close_levels(self) -> None:
        for level in self._levels:
            level.close()

    def close(self) -> None:
        """Close every file."""
        self._close_levels()
        self._cgroups.close()
        self._meminfo.close()
        self._vmstat.close()


class _LevelRow(NamedTuple):
    """One level at one time: usage and limit, its name, its counters and the swap that is left to it."""

    reading: Reading
    name: str
    reclaims: float
    ooms: float
    swap_left: float


_ABSENT = _LevelRow(Reading(NOT_SUPPORTED, NOT_SUPPORTED), "", NOT_SUPPORTED, NOT_SUPPORTED, NOT_SUPPORTED)


def _level_row(level: Level, host_swap_left: float, fixed_kernel: float) -> _LevelRow:
    """Return *level* as it is now; without any swap of the host, a share of it is nothing."""
    swap_left = min(level.swap_left(), host_swap_left) if is_known(host_swap_left) else host_swap_left
    return _LevelRow(level.read(fixed_kernel), level.name, *level.events(), swap_left)


def _events(rows: Sequence[_LevelRow]) -> tuple[float, float]:
    """Return the reclaim and OOM events of all cgroups in *rows*; of the host (the first) where there are none."""
    if len(rows) == 1:
        return NOT_SUPPORTED, rows[0].ooms
    return total(row.reclaims for row in rows[1:]), total(row.ooms for row in rows[1:])


def _space(path: str) -> tuple[float, float]:
    """Return size and used bytes of the file system at *path*."""
    try:
        status = os.statvfs(path)
    except OSError as error:
        return why(error), why(error)
    size = float(status.f_blocks * status.f_frsize)
    return size, size - status.f_bfree * status.f_frsize
