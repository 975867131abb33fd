"""What the kernel counts at this moment: what a process has of its own, and what is free under the innermost limit.

Source: proc_pid_statm(5), proc_pid_status(5); the kernel's cgroup-v1/memory.rst and cgroup-v2.rst.
"""

from __future__ import annotations

import os

from shm_monitor.segment.memory_identity import innermost_limit

SHARE = 0.92  # of the limit; in the rest live page tables, kernel memory and what grows between two looks
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_ENOUGH = 1 << 62
_V1_FILES = (b"total_inactive_file ", b"total_active_file ", b"total_mapped_file ")
_V2_FILES = (b"inactive_file ", b"active_file ", b"file_mapped ")


def anonymous_bytes(pid: int | str = "self") -> int:
    """Return the resident memory of *pid* that is not of a file; 0 when it is gone."""
    try:
        pages = _read(f"/proc/{pid}/statm").split()
        return (int(pages[1]) - int(pages[2])) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def peak_bytes() -> int:
    """Return the largest resident memory of this process since ``reset_peak``, without pages of files."""
    try:
        rows = _Rows(_read("/proc/self/status"))
    except OSError:
        return 0
    return (rows.get(b"VmHWM:", 0) - rows.get(b"RssFile:", 0)) * 1024


class Limit:
    """The innermost memory limit of this process, or the host's memory.

    Attributes:
        name: the inode of the cgroup that has the limit, or ``host``.
        limit_bytes: how much there is.
    """

    def __init__(self) -> None:
        """Look for the limit."""
        scope = innermost_limit()
        total = _Rows(_read("/proc/meminfo")).get(b"MemTotal:", 0) * 1024
        self._directory = scope.directory if scope and (scope.limit_bytes or 0) < total else ""
        self.limit_bytes = (scope.limit_bytes or total) if scope and self._directory else total
        self.name = str(scope.inode) if scope and self._directory else "host"
        self._is_v1 = os.path.exists(f"{self._directory}/memory.usage_in_bytes")

    def free_bytes(self, enough: int = _ENOUGH) -> int:
        """Return what may still be taken; file caches count as free, and are read only where *enough* is not."""
        if not self._directory:
            available = _Rows(_read("/proc/meminfo")).get(b"MemAvailable:", 0) * 1024
            return available - int(self.limit_bytes * (1 - SHARE))
        usage = "memory.usage_in_bytes" if self._is_v1 else "memory.current"
        free = int(self.limit_bytes * SHARE) - int(_read(f"{self._directory}/{usage}"))
        if free >= enough:
            return free
        inactive, active, mapped = _V1_FILES if self._is_v1 else _V2_FILES
        rows = _Rows(_read(f"{self._directory}/memory.stat"))
        return free + max(rows.get(inactive, 0) + rows.get(active, 0) - rows.get(mapped, 0), 0)


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read(16384)


class _Rows:
    """The numbers of a file that has a name and a number in each line; one is looked for only when it is asked for."""

    def __init__(self, text: bytes) -> None:
        self._text = b"\n" + text

    def get(self, name: bytes, default: int) -> int:
        at = self._text.find(b"\n" + name)
        return int(self._text[at + 1 + len(name) :].split(None, 1)[0]) if at >= 0 else default
