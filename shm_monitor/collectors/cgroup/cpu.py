"""CPU of one cgroup: seconds used, quota in cores and throttled periods (v1 and v2), and which CPUs we may run on.

Source: Documentation/scheduler/sched-bwc.rst, cgroup-v1/cpuacct.rst, cgroup-v2.rst (CPU Interface Files).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from shm_monitor.collectors.cgroup.scope import Cgroups, Directory, Scope
from shm_monitor.collectors.cpu_ticks import Share
from shm_monitor.collectors.files import (
    ERROR,
    NOT_SUPPORTED,
    NOT_YET_SAMPLED,
    ProcFile,
    Rate,
    Roots,
    difference,
    is_known,
    number_of,
    numbers,
    percent,
    why,
    words,
)


class Usage(NamedTuple):
    """Cumulative CPU seconds of a cgroup, its quota in cores (infinite without one), and its enforcement periods."""

    seconds: float
    quota: float
    periods: float
    throttled: float


class LevelV2:
    """One v2 cgroup. Cost: 4 us (cpu.stat, cpu.max)."""

    _STAT = (b"\nusage_usec ", b"\nnr_periods ", b"\nnr_throttled ")

    def __init__(self, directory: Directory) -> None:
        self.name = directory.name
        self._stat = ProcFile(directory.path / "cpu.stat")
        self._max = ProcFile(directory.path / "cpu.max")

    def read(self) -> Usage:
        """Return the counters and the quota as they are now."""
        used_us, periods, throttled = numbers(self._stat, self._STAT)
        quota, period = words(self._max, 2)
        return Usage(_scaled(used_us, 1e-6), _cores(quota, period), periods, throttled)

    def close(self) -> None:
        """Close the files."""
        self._stat.close()
        self._max.close()


class LevelV1:
    """One v1 cgroup of the cpu controller. Cost: 4 us, and 12 us a process where cpuacct has no such cgroup.

    cpu and cpuacct are usually mounted as one. Where they are not and a process sits in different places of the two,
    nothing counts the use of the cpu cgroup, and it is summed over its processes.
    """

    _STAT = (b"\nnr_periods ", b"\nnr_throttled ")

    def __init__(self, directory: Directory, accounting: Path | None, proc: str) -> None:
        path = directory.path
        self.name = directory.name
        self._quota = ProcFile(path / "cpu.cfs_quota_us")
        self._period = ProcFile(path / "cpu.cfs_period_us")
        self._stat = ProcFile(path / "cpu.stat")
        self._usage = ProcFile(accounting / "cpuacct.usage") if accounting else None
        self._processes = Processes(path / "cgroup.procs", proc)

    def read(self) -> Usage:
        """Return the counters and the quota as they are now."""
        quota = number_of(self._quota)
        periods, throttled = numbers(self._stat, self._STAT)
        cores = float("inf") if quota < 0 else _cores(quota, number_of(self._period))
        return Usage(self._seconds(cores), cores, periods, throttled)

    def _seconds(self, cores: float) -> float:
        if self._usage is not None:
            return _scaled(number_of(self._usage), 1e-9)
        return self._processes.seconds() if cores < float("inf") else NOT_SUPPORTED

    def close(self) -> None:
        """Close the files."""
        for file in (self._quota, self._period, self._stat, self._usage):
            if file is not None:
                file.close()
        self._processes.close()


Level = LevelV1 | LevelV2


class Processes:
    """CPU seconds of the processes in one cgroup since the first look, from /proc/PID/stat (ticks of 10 ms)."""

    def __init__(self, path: Path, proc: str) -> None:
        self._file = ProcFile(path)
        self._proc = proc
        self._ticks: dict[bytes, int] = {}
        self._sum = 0
        self._ticks_per_second = os.sysconf("SC_CLK_TCK")

    def seconds(self) -> float:
        """Return what they used since the first call; what a process used before it came here is not counted."""
        try:
            pids = self._file.read().split()
        except OSError as error:
            return why(error)
        now = {pid: ticks for pid in pids if (ticks := self._read(pid)) is not None}
        self._sum += sum(max(0, ticks - self._ticks.get(pid, ticks)) for pid, ticks in now.items())
        self._ticks = now
        return self._sum / self._ticks_per_second

    def _read(self, pid: bytes) -> int | None:
        try:
            text = Path(self._proc, os.fsdecode(pid), "stat").read_bytes()
            fields = text[text.rindex(b")") + 2 :].split()
            return int(fields[11]) + int(fields[12])  # utime, stime: proc_pid_stat(5)
        except (OSError, ValueError, IndexError):  # it ended while we look
            return None

    def close(self) -> None:
        """Close the list of processes."""
        self._file.close()


def levels(cgroups: Cgroups, roots: Roots) -> list[Level]:
    """Return the CPU levels of *cgroups* that have a quota file, outermost first."""
    accounting = {directory.name: directory.path for directory in cgroups.of("cpuacct") if directory.version == 1}
    found: list[Level] = []
    for directory in cgroups.of("cpu"):
        level: Level
        if directory.version == 2:
            level = LevelV2(directory)
        else:
            level = LevelV1(directory, accounting.get(directory.name), roots.proc)
        if is_known(level.read().quota):
            found.append(level)
        else:
            level.close()
    return found


class LevelShare(NamedTuple):
    """One level between two samples."""

    share: Share
    throttled_percent: float


class LevelRate:
    """One level and its counters at the sample before."""

    def __init__(self, level: Level) -> None:
        self.name = level.name
        self._level = level
        self._cores = Rate()
        self._before = (NOT_YET_SAMPLED, NOT_YET_SAMPLED)

    def read(self, now_ns: int) -> LevelShare:
        """Return cores used against the quota, and percent of the enforcement periods that were throttled."""
        usage = self._level.read()
        periods = difference(usage.periods, self._before[0])
        throttled = difference(usage.throttled, self._before[1])
        self._before = (usage.periods, usage.throttled)
        # No period passed: there is no quota, or nothing of ours ran.
        throttled_percent = throttled if periods == 0 else percent(throttled, periods)
        return LevelShare(Share(self._cores(usage.seconds, now_ns), usage.quota), throttled_percent)

    def close(self) -> None:
        """Close the files."""
        self._level.close()


class Allowed:
    """The CPUs that the scope may run on, read again at each call. Cost: 6 us."""

    def __init__(self, scope: Scope, cgroups: Cgroups, roots: Roots) -> None:
        self._offline = ProcFile(Path(roots.sys, "devices/system/cpu/offline"))
        self._status: ProcFile | None = None
        self._cpusets: Sequence[ProcFile] = ()
        if scope.kind == "pid":
            self._status = ProcFile(Path(roots.proc, scope.process, "status"), follow=False)
        elif scope.kind == "path":
            paths = [directory.path for directory in cgroups.of("cpuset")[-1:]]
            names = ("cpuset.cpus.effective", "cpuset.effective_cpus")
            self._cpusets = [ProcFile(path / name) for path in paths for name in names if (path / name).exists()]

    def read(self) -> frozenset[int] | None:
        """Return the CPU numbers; None where nothing restricts them or the process is gone.

        Raises:
            ValueError: the kernel's list is not a list of ranges.
        """
        try:
            return cpu_list(self._text())
        except OSError:
            return None

    def offline(self) -> frozenset[int]:
        """Return the numbers of the CPUs that are offline; those that are allowed may be among them. Cost: 12 us."""
        try:
            return cpu_list(self._offline.read()) or frozenset()
        except (OSError, ValueError):
            return frozenset()

    def _text(self) -> bytes:
        """Return the kernel's list; empty where it has none."""
        if self._status is None:
            return self._cpusets[0].read() if self._cpusets else b""
        text = self._status.read()
        start = text.find(b"\nCpus_allowed_list:")
        return text[start + 19 : text.find(b"\n", start + 1)] if start >= 0 else b""

    def close(self) -> None:
        """Close the files."""
        for file in (self._offline, self._status, *self._cpusets):
            if file is not None:
                file.close()


def cpu_list(text: bytes) -> frozenset[int] | None:
    """Return the numbers of a list such as ``0-3,8``; None for an empty one. Source: cpuset(7), List format."""
    cpus: set[int] = set()
    for part in text.strip().split(b","):
        first, _, last = part.partition(b"-")
        if first:
            cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus) or None


def _scaled(value: float, factor: float) -> float:
    return value * factor if is_known(value) else value


def _cores(quota: float, period: float) -> float:
    """Return a quota in cores: microseconds of run time in each period."""
    if not is_known(quota):
        return quota
    if not is_known(period):
        return period
    return quota / period if period > 0 else ERROR
