"""Memory: of the level that ends first (host or one of our cgroups), of the host, swap and /dev/shm."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shm_monitor.collectors.base import Array
from shm_monitor.collectors.cgroup.memory import Level, Reading, levels
from shm_monitor.collectors.cgroup.scope import Cgroups, Scope
from shm_monitor.collectors.files import (
    ERROR,
    NOT_SUPPORTED,
    NOT_YET_SAMPLED,
    ProcFile,
    Rate,
    Roots,
    difference,
    is_known,
    numbers,
    percent,
    total,
    why,
)
from shm_monitor.schema import Metric

_MEMINFO = "/proc/meminfo"
_VMSTAT = "/proc/vmstat"
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
    _bytes("host_total_bytes", "All memory of the host.", f"{_MEMINFO} MemTotal"),
    _bytes("host_available_bytes", "What the host can give without swapping.", f"{_MEMINFO} MemAvailable"),
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
        "memory.events high + max (v2), memory.failcnt + memory.memsw.failcnt (v1)",
        integer=True,
    ),
    Metric(
        "memory",
        "oom_events_count",
        "count",
        "How often the kernel ran out of memory within a limit on us or killed one of us (host scope: anyone, while "
        "the host itself was short of memory).",
        "memory.events oom + oom_kill (v2), memory.oom_control oom_kill (v1), /proc/vmstat oom_kill (host)",
        integer=True,
    ),
)


# The kernel kills for the host when nothing is left to reclaim: MemAvailable is then a few percent at most.
_HOST_SHORT = 0.9

_MEMINFO_KEYS = (b"\nMemTotal:", b"\nMemAvailable:", b"\nCached:", b"\nSReclaimable:", b"\nSwapTotal:", b"\nSwapFree:")
_VMSTAT_KEYS = (b"\npswpin ", b"\npswpout ", b"\noom_kill ")


class MemoryCollector:
    """Memory of the tightest level, of the host, swap and /dev/shm.

    Source: /proc/meminfo, /proc/vmstat, memory controllers, statvfs(3).
    Cost: 65 us, with 2 cgroups without a limit.
    """

    name = "memory"
    threaded = False
    interval_seconds: float | None = None
    metrics: Sequence[Metric] = METRICS

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
        self._meminfo = ProcFile(Path(roots.proc, "meminfo"))
        self._vmstat = ProcFile(Path(roots.proc, "vmstat"))
        self._swap_in, self._swap_out = Rate(), Rate()
        self._host_kills = HostKills()
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self.facts: Mapping[str, list[str]] = {"scopes": ["host", *(level.name for level in self._levels)]}

    def collect(self, out: Array) -> None:
        """Write the readings into *out*, shape (16,), in the order of METRICS."""
        if self._cgroups.changed():
            self._close_levels()
            self._levels = levels(self._cgroups.of("memory"))
        in_kib = numbers(self._meminfo, _MEMINFO_KEYS)
        size, available, cached, slab, swap, swap_free = (
            value * 1024 if is_known(value) else value for value in in_kib
        )
        swap_in, swap_out, kills = self._pages()
        host = Reading(difference(size, available), size)
        out[:] = (
            *self._tightest(host),
            *(size, available, total((cached, slab)), swap, difference(swap, swap_free), swap_in, swap_out),
            *_space(self._shm),
            *self._events(self._host_kills.count(kills, host)),
        )

    def _tightest(self, host: Reading) -> tuple[float, float, float, float, float]:
        """Return usage, capacity, what is left, percent and scope of the level with the smallest headroom."""
        tightest, name = host, "host"
        for level in self._levels:
            reading = level.read(tightest.headroom)
            if not is_known(reading.headroom):
                tightest = reading
                break
            if reading.headroom < tightest.headroom:
                tightest, name = reading, level.name
        left = tightest.headroom
        if not is_known(left):
            return left, left, left, left, left
        scopes = self.facts["scopes"]
        scope = float(scopes.index(name)) if name in scopes else ERROR
        return (*tightest, max(0.0, left), percent(*tightest), scope)

    def _pages(self) -> tuple[float, float, float]:
        """Return bytes per second from and to swap, and the kills of the whole host."""
        now = self._clock()
        pages_in, pages_out, kills = numbers(self._vmstat, _VMSTAT_KEYS)
        rates = self._swap_in(pages_in, now), self._swap_out(pages_out, now)
        swap_in, swap_out = (rate * self._page_bytes if is_known(rate) else rate for rate in rates)
        return swap_in, swap_out, kills

    def _events(self, host_ooms: float) -> tuple[float, float]:
        if not self._levels:
            return NOT_SUPPORTED, host_ooms
        reached, ooms = zip(*(level.events() for level in self._levels), strict=True)
        return total(reached), total(ooms)

    def _close_levels(self) -> None:
        for level in self._levels:
            level.close()

    def close(self) -> None:
        """Close every file."""
        self._close_levels()
        self._cgroups.close()
        self._meminfo.close()
        self._vmstat.close()


class HostKills:
    """OOM kills of the host itself.

    /proc/vmstat counts those within other cgroups too, which say nothing of us: so only those count that came while the
    host was short of memory. It may no longer be at the sample after a kill.
    """

    def __init__(self) -> None:
        self._before = NOT_YET_SAMPLED
        self._was_short = False
        self._others = 0.0

    def count(self, kills: float, host: Reading) -> float:
        """Return *kills*, the counter of the kernel, without those of others since the first call."""
        short = not host.usage < _HOST_SHORT * host.limit
        if is_known(kills):
            if is_known(self._before) and not (short or self._was_short):
                self._others += kills - self._before
            self._before = kills
        self._was_short = short
        return difference(kills, self._others)


def _space(path: str) -> tuple[float, float]:
    """Return size and used bytes of the file system at *path*."""
    try:
        status = os.statvfs(path)
    except OSError as error:
        return why(error), why(error)
    size = float(status.f_blocks * status.f_frsize)
    return size, size - status.f_bfree * status.f_frsize
