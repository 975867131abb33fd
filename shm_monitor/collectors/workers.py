"""Workers: who of the process tree under the sampler's owner uses the memory and the CPU."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shm_monitor.collectors.base import Array
from shm_monitor.collectors.files import (
    DISABLED,
    NOT_SUPPORTED,
    Rate,
    Roots,
    is_known,
    number,
    sum_of_rates,
    total,
    why,
)
from shm_monitor.process_names import ProcessName, name_of
from shm_monitor.schema import Metric

INTERVAL_SECONDS = 2.0
ROWS = 16
# Reading smaps_rollup walks the page tables under mmap_lock: 7 us per MiB measured with 4 KiB pages, three times that
# with cold caches. What all workers together hold beyond this is not looked at, so a scan costs 3 ms for it at most and
# never holds up a big process. It is less than an owner and its sampler hold (20 and 150 MB): with the sampler's pages
# the scans took 0.3 % of a core, without 0.04 to 0.1 %.
PSS_BUDGET_BYTES = 160 << 20
_RECHECK_SCANS = 15  # a pid or a process that has become another program is noticed after half a minute

_STAT = "/proc/PID/stat"
_ROLLUP = "/proc/PID/smaps_rollup"


def _row(field: str, unit: str, text: str, source: str, instance: str = "") -> Metric:
    return Metric("workers", field, unit, text, source, instance, integer=unit in {"bytes", "count", "pid"})


TOTALS = (
    _row("count", "count", "Processes of the tree under the owner, which is one of them.", f"{_STAT} ppid"),
    _row("cpu_percent", "percent", "CPU of all of them; 100 is one core.", f"{_STAT} utime + stime"),
    _row("rss_bytes", "bytes", "Resident memory of all of them; shared pages count once for each.", f"{_STAT} rss"),
    _row(
        "pss_bytes",
        "bytes",
        "Resident memory, shared pages divided; unknown where it is dear to read.",
        f"{_ROLLUP} Pss",
    ),
)


def _table_row(instance: str) -> tuple[Metric, ...]:
    return (
        _row("pid", "pid", "Process with the most resident memory, 0 is the largest.", _STAT, instance),
        _row("cpu_percent", "percent", "Its CPU; 100 is one core.", f"{_STAT} utime + stime", instance),
        _row("rss_bytes", "bytes", "Its resident memory.", f"{_STAT} rss", instance),
        _row("pss_bytes", "bytes", "Its memory, shared pages divided by who shares them.", f"{_ROLLUP} Pss", instance),
        _row("uss_bytes", "bytes", "Its memory that nobody shares.", f"{_ROLLUP} Private_*", instance),
    )


class Process(NamedTuple):
    """One process as /proc/PID/stat shows it. Source: proc_pid_stat(5)."""

    pid: int
    parent: int
    start_ticks: int
    cpu_ticks: int
    rss_bytes: int
    read_ns: int  # when its clock stood at cpu_ticks: a scan that is held up half-way spreads over some time


class Worker(NamedTuple):
    """One row of the table; percent and bytes, unknown where not readable."""

    pid: int
    cpu_percent: float
    rss_bytes: float
    pss_bytes: float
    uss_bytes: float


class WorkersCollector:
    """The process tree under one process: totals, and the 16 largest. A process that ended is gone at the next scan.

    Source: /proc/PID/stat, /proc/PID/smaps_rollup. Cost: 0.4 ms for a tree of 2 among 70 processes.
    """

    name = "workers"
    threaded = True
    interval_seconds: float | None = INTERVAL_SECONDS
    metrics: Sequence[Metric] = (*TOTALS, *(row for index in range(ROWS) for row in _table_row(str(index))))

    def __init__(self, owner_pid: int, roots: Roots, *, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Watch *owner_pid* and all below it."""
        self._proc = roots.proc
        self._tree = ProcessTree(owner_pid, roots.proc, clock)
        self._rates: dict[tuple[int, int], Rate] = {}
        self._named: dict[tuple[int, int], ProcessName] = {}
        self._scans = 0
        self._ticks_per_second = os.sysconf("SC_CLK_TCK")
        self.facts: Mapping[str, Any] = {}  # no pid: with another owner the segment means the same, and is taken over
        self.processes: Mapping[int, ProcessName] = {}

    def collect(self, out: Array) -> None:
        """Write the readings into *out*, shape (84,): 4 totals, then 16 rows of 5 (``disabled`` without a process)."""
        try:
            processes = self._tree.scan()
        except OSError as error:
            out[:] = why(error)
            return
        if not processes:
            out[:] = NOT_SUPPORTED
            return
        processes.sort(key=lambda process: process.rss_bytes)
        seen_before = self._rates.keys()
        workers = list(self._workers(processes))
        largest = workers[: -ROWS - 1 : -1]
        self.processes = self._names(processes[-ROWS:], seen_before)
        out[:] = DISABLED
        out[: len(TOTALS)] = (
            len(workers),
            sum_of_rates(worker.cpu_percent for worker in workers),
            total(worker.rss_bytes for worker in workers),
            total(worker.pss_bytes for worker in workers),
        )
        values = [value for worker in largest for value in worker]
        out[len(TOTALS) : len(TOTALS) + len(values)] = values

    def _workers(self, processes: Iterable[Process]) -> Iterator[Worker]:
        """Yield the rows of *processes*, smallest first, so that the budget for PSS serves as many as it can."""
        left = PSS_BUDGET_BYTES
        before, self._rates = self._rates, {}
        for process in processes:
            key = process.pid, process.start_ticks  # a pid alone may be another process by now
            rate = self._rates[key] = before.get(key) or Rate()
            ticks_per_second = rate(process.cpu_ticks, process.read_ns)
            left -= process.rss_bytes
            shared = self._shared(process.pid) if left >= 0 else (DISABLED, DISABLED)
            cpu = 100 * ticks_per_second / self._ticks_per_second if is_known(ticks_per_second) else ticks_per_second
            yield Worker(process.pid, cpu, process.rss_bytes, *shared)

    def _names(self, shown: Iterable[Process], seen_before: Container[tuple[int, int]]) -> dict[int, ProcessName]:
        """Return what the processes *shown* are called, by pid.

        The name of a new one is read twice: between fork and exec it is that of its parent.
        """
        self._scans += 1
        known = self._named if self._scans % _RECHECK_SCANS else {}
        keys = [(process.pid, process.start_ticks) for process in shown]
        names = {key: known.get(key) or name_of(key[0], self._proc) for key in keys}
        self._named = {key: name for key, name in names.items() if key in seen_before}
        return {pid: name for (pid, _), name in names.items()}

    def _shared(self, pid: int) -> tuple[float, float]:
        """Return PSS and USS of *pid*, bytes; another user's are NO_PERMISSION."""
        try:
            data = Path(self._proc, str(pid), "smaps_rollup").read_bytes()
        except OSError as error:
            return why(error), why(error)
        pss = number(data, b"\nPss:")
        private = total(number(data, key) for key in (b"\nPrivate_Clean:", b"\nPrivate_Dirty:"))
        return (pss * 1024 if is_known(pss) else pss), (private * 1024 if is_known(private) else private)

    def close(self) -> None:
        """Nothing is held open."""


class ProcessTree:
    """The processes under one of them. Cost: 0.5 us a process that is not of the tree, 14 us one that is."""

    def __init__(self, owner_pid: int, proc: str, clock: Callable[[], int]) -> None:
        """Watch *owner_pid*; *proc* is where procfs is, *clock* counts nanoseconds."""
        self._owner = owner_pid
        self._proc = proc
        self._clock = clock
        self._strangers: set[str] = set()
        self._scans = 0
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")

    def scan(self) -> list[Process]:
        """Return the owner and all below it that live now.

        Whoever was seen outside the tree cannot get into it (the new parent of an orphan was above it before), so such
        strangers are not read again, but for every 15th scan: pids are used again.

        Raises:
            OSError: /proc cannot be listed.
        """
        pids = {name for name in os.listdir(self._proc) if name.isdecimal()}
        self._scans += 1
        self._strangers = self._strangers & pids if self._scans % _RECHECK_SCANS else set()
        found = {process.pid: process for pid in pids - self._strangers if (process := self._read(pid)) is not None}
        tree = self._under_owner(found)
        # One whose parent ended while we looked may be an orphan of the tree by now: not yet a stranger.
        known = {0, *found, *map(int, self._strangers)}
        self._strangers.update(str(pid) for pid in found.keys() - tree if found[pid].parent in known)
        return [found[pid] for pid in tree]

    def _under_owner(self, found: Mapping[int, Process]) -> set[int]:
        children: dict[int, list[int]] = {}
        for process in found.values():
            children.setdefault(process.parent, []).append(process.pid)
        tree: set[int] = set()
        ahead = [self._owner] if self._owner in found else []
        while ahead:
            pid = ahead.pop()
            if pid not in tree:
                tree.add(pid)
                ahead += children.get(pid, ())
        return tree

    def _read(self, pid: str) -> Process | None:
        try:
            text, read_ns = Path(self._proc, pid, "stat").read_bytes(), self._clock()
            # the name is in parentheses and may hold any character
            words = text[text.rindex(b")") + 2 :].split()
            state, parent, start = words[0], int(words[1]), int(words[19])
            ticks, pages = int(words[11]) + int(words[12]), int(words[21])
        except (OSError, ValueError, IndexError):  # it ended while we look
            return None
        if state in {b"Z", b"X"}:
            return None
        return Process(int(pid), parent, start, ticks, pages * self._page_bytes, read_ns)
