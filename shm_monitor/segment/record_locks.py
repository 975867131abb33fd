"""Single bytes of a side file under exclusive record locks: the kernel takes each back from a process that dies.

Such a lock keeps other processes out and not its own, and a forked child inherits none. Closing *any* descriptor of the
file drops all of the process's locks on it, so one descriptor is kept per file, for good.

Source: fcntl(2), "Advisory record locking"; POSIX.1-2017, close().
"""

from __future__ import annotations

import fcntl
import os

from shm_monitor.segment import side_files

_files: dict[tuple[str, str], int] = {}


def file_of(name: str, suffix: str, *, make: bool = True) -> int:
    """Return the one descriptor of this process (and, at first, of its forked children) for the file of *name*.

    Raises:
        MonitorError: the file cannot be made or trusted.
        FileNotFoundError: there is none, and none is to be made.
    """
    key = (name, suffix)
    if key not in _files:
        _files[key] = side_files.open_file(name, suffix, os.O_RDWR | (os.O_CREAT if make else 0))
    return _files[key]


def lock(name: str, suffix: str, byte: int) -> bool:
    """Lock *byte*; return False where another process holds it.

    Raises:
        MonitorError: the file cannot be made or trusted.
    """
    try:
        fcntl.lockf(file_of(name, suffix), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
    except (BlockingIOError, PermissionError):  # both are allowed, fcntl(2)
        return False
    return True


def unlock(name: str, suffix: str, byte: int) -> None:
    """Let go of *byte*."""
    fcntl.lockf(file_of(name, suffix), fcntl.LOCK_UN, 1, byte)
