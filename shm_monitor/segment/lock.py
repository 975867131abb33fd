"""One sampler per name: an exclusive lock on a side file.

An fcntl lock, because a ``flock`` survives in forked children of a killed owner; on a file of its own, because an
fcntl lock on the segment itself is lost when any descriptor of it closes, and mapping it closes one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys

from shm_monitor.errors import AlreadyRunningError, MonitorError
from shm_monitor.segment import side_files
from shm_monitor.segment.names import LOCK_SUFFIX, side_path

# struct flock of fcntl(2): Linux puts the type first, macOS the offsets.
_FLOCK = struct.Struct("hhqqi4x") if sys.platform == "linux" else struct.Struct("qqihh")


class Lock:
    """The right to be the sampler of one name. Open the lock file nowhere else in the process that holds it."""

    def __init__(self, name: str) -> None:
        """Take the lock at once.

        Raises:
            AlreadyRunningError: somebody holds it; says who.
            UntrustedError: the lock file or its directory belongs to somebody else, or is a link.
            NoSpaceError: shared memory is full.
            SamplerError: the system refuses, such as for too many open files.
        """
        self.path = side_path(name, LOCK_SUFFIX)
        self._fd = _locked(name, self.path)
        self._pid = os.getpid()

    def release(self) -> None:
        """Remove the lock file and give the lock back; in a forked child, nothing."""
        if self._fd >= 0 and os.getpid() == self._pid:
            if _is_at(self._fd, self.path):  # else somebody removed it, and the file there is another sampler's lock
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path)
            os.close(self._fd)
        self._fd = -1


def holder_of(name: str, suffix: str = LOCK_SUFFIX) -> int | None:
    """Return the pid of a process that holds a lock on a side file of *name*, 0 for one of another pid namespace.

    None where nobody does. Not in the process that holds it: closing the descriptor would lose the lock.
    """
    try:
        fd = side_files.open_file(name, suffix, os.O_RDONLY)
    except (OSError, MonitorError):
        return None
    try:
        return _holder(fd)
    finally:
        os.close(fd)


def _locked(name: str, path: str) -> int:
    while True:
        fd = side_files.open_file(name, LOCK_SUFFIX, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            holder = _holder(fd)
            os.close(fd)
            raise AlreadyRunningError(name, holder or 0) from None
        if _is_at(fd, path):
            return fd
        os.close(fd)  # its last owner removed the file between our open and our lock


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _holder(fd: int) -> int | None:
    request = _FLOCK.pack(*_fields(kind=fcntl.F_WRLCK, pid=0))
    kind, pid = _parsed(_FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, request)))
    return None if kind == fcntl.F_UNLCK else max(pid, 0)


def _fields(*, kind: int, pid: int) -> tuple[int, ...]:
    return (kind, os.SEEK_SET, 0, 0, pid) if sys.platform == "linux" else (0, 0, pid, kind, os.SEEK_SET)


def _parsed(fields: tuple[int, ...]) -> tuple[int, int]:
    return (fields[0], fields[4]) if sys.platform == "linux" else (fields[3], fields[2])
