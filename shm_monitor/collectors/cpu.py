"""CPU: use over what we may use (affinity and the quota of every cgroup above us), and of the host."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import reduce

from shm_monitor.collectors.base import Array
from shm_monitor.collectors.cgroup.cpu import Allowed, LevelRate, levels
from shm_monitor.collectors.cgroup.scope import Cgroups, Scope
from shm_monitor.collectors.cpu_ticks import ALL, Share, TickReader, Window
from shm_monitor.collectors.files import (
    ERROR,
    NOT_SUPPORTED,
    ProcFile,
    Roots,
    difference,
    hosts_file,
    is_known,
    percent,
    words,
)
from shm_monitor.schema import Metric

_STAT = "/proc/stat"
_CGROUP = "cpu.max and cpu.stat (v2), cpu.cfs_quota_us and cpu.stat (v1)"


def _percent(field: str, text: str, source: str, *, rolled: bool = False) -> Metric:
    return Metric("cpu", field, "percent", text, source, rolled=rolled)


METRICS = (
    _percent(
        "cpu_percent",
        "CPU in use over what we may use, at the level (our CPUs, or a cgroup with a quota) that has the least left.",
        f"{_STAT}, Cpus_allowed_list of /proc/PID/status, {_CGROUP}",
        rolled=True,
    ),
    _percent("host_cpu_percent", "CPU in use over all CPUs of the host.", f"{_STAT} cpu", rolled=True),
    Metric("cpu", "count", "cpus", "Logical CPUs of the host that are online.", _STAT, integer=True),
    Metric("cpu", "effective_count", "cpus", "CPUs we may use: the smallest of affinity and quotas.", _CGROUP),
    *(
        Metric(
            "cpu", f"load_{minutes}", "tasks", f"Tasks running or in disk wait, {minutes} min mean.", "/proc/loadavg"
        )
        for minutes in (1, 5, 15)
    ),
    _percent("throttled_percent", "Share of the enforcement periods in which a quota on us held tasks back.", _CGROUP),
    _percent("iowait_percent", "CPU idle while a disk request of its tasks was pending, host.", f"{_STAT} iowait"),
    _percent("steal_percent", "CPU that the hypervisor gave to others, host.", f"{_STAT} steal"),
)


class CpuCollector:
    """CPU of the tightest level, of the host and of each core.

    Source: /proc/stat, /proc/loadavg, /proc/PID/status, cpu controllers.
    Cost: 31 us, with 2 cores and no quota.
    """

    name = "cpu"
    threaded = False
    interval_seconds: float | None = None

    def __init__(self, scope: Scope, roots: Roots, *, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Find the cores and the levels; a core that comes later has no column of its own.

        Raises:
            ConfigError: *scope* names a process or cgroup that cannot be seen.
        """
        self._clock = clock
        self._roots = roots
        self._cgroups = Cgroups(scope, roots)
        self._allowed = Allowed(scope, self._cgroups, roots)
        self._hidden = not hosts_file(roots, "stat")
        self._ticks = TickReader(f"{roots.proc}/stat")
        self._load = ProcFile(f"{roots.proc}/loadavg")
        self._levels = self._find_levels()
        self._cores = self._ticks.cores()
        self.metrics: Sequence[Metric] = (*METRICS, *(_core_percent(core) for core in self._cores))
        self.facts: Mapping[str, list[str]] = {"scopes": ["host", *(level.name for level in self._levels)]}

    def _find_levels(self) -> list[LevelRate]:
        return [LevelRate(level) for level in levels(self._cgroups, self._roots)]

    def collect(self, out: Array) -> None:
        """Write the readings into *out*, shape (10 + cores,), in the order of ``metrics``."""
        if self._cgroups.changed():
            self._close_levels()
            self._levels = self._find_levels()
        window = self._ticks.window()
        levels_now = [level.read(self._clock()) for level in self._levels]
        out[:] = (
            *self._effective(window, [level.share for level in levels_now]),
            *words(self._load, 3),
            _most([level.throttled_percent for level in levels_now]),
            *window.percents(ALL)[1:],
            *(window.percents(core)[0] for core in self._cores),
        )

    def _effective(self, window: Window, quotas: Sequence[Share]) -> tuple[float, float, float, float]:
        """Return percent in use at the level with the least left, of the host, its CPUs, and the CPUs we may use."""
        host = window.percents(ALL)[0]
        try:
            allowed = self._allowed.read()
        except ValueError:
            return ERROR, host, window.count, ERROR
        if allowed and not window.lists(allowed):
            allowed -= self._allowed.offline()
        shares = [window.share(allowed), *(quota for quota in quotas if quota.limit != math.inf)]
        if self._hidden and len(shares) > 1:
            del shares[0]
        return percent(*reduce(_tighter, shares)), host, window.count, reduce(_least, [each.limit for each in shares])

    def _close_levels(self) -> None:
        for level in self._levels:
            level.close()

    def close(self) -> None:
        """Close every file."""
        self._close_levels()
        for file in (self._cgroups, self._allowed, self._ticks, self._load):
            file.close()


def _tighter(left: Share, right: Share) -> Share:
    """Return the one of two that has fewer cores left, or the one that is unknown: it might be."""
    left_over, right_over = difference(left.limit, left.used), difference(right.limit, right.used)
    if not is_known(left_over):
        return left
    return left if right_over >= left_over else right


def _least(left: float, right: float) -> float:
    return right if is_known(left) and not right >= left else left


def _most(values: Sequence[float]) -> float:
    """Return the largest that is known, else why the first is not; a level without a controller says nothing."""
    known = [value for value in values if is_known(value)]
    return max(known) if known else next(iter(values), NOT_SUPPORTED)


def _core_percent(core: bytes) -> Metric:
    return Metric("cpu", "core_percent", "percent", "CPU in use of one core.", f"{_STAT} cpuN", os.fsdecode(core[3:]))
