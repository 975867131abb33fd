"""A few tokens per host: who holds one goes on. The kernel takes a token back from a process that dies.

Each token is a byte of a side file under an exclusive POSIX record lock (fcntl(2), F_SETLK). Such a lock belongs to a
process: closing any descriptor of the file would give all of them back, so one descriptor is kept per file, and what
this process holds itself is remembered here.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading

from shm_monitor.errors import MonitorError
from shm_monitor.segment import side_files

_log = logging.getLogger("shm_monitor")

_lock = threading.Lock()
_files: dict[tuple[int, str, str], int] = {}  # by process: a forked child inherits descriptors, and no locks
_held: set[tuple[int, str, str, int]] = set()


class Tokens:
    """At most one token of *count* that the processes and threads of this user on this host share."""

    def __init__(self, name: str, suffix: str, count: int) -> None:
        """Share the tokens of the sampler *name* that go by *suffix*."""
        self._name, self._suffix = name, suffix
        self._count = count
        self._mine: tuple[int, str, str, int] | None = None

    def take(self) -> bool:
        """Take a token unless one is held already; return whether one is."""
        with _lock:
            if self._mine is not None and self._mine[0] == os.getpid():
                return True
            try:
                self._mine = next((key for at in range(self._count) if (key := self._try(at))), None)
            except MonitorError as error:
                _log.warning("who goes on cannot be agreed, so this worker does: %s", error)
                return True
            return self._mine is not None

    def give_back(self) -> None:
        """Let another have it."""
        with _lock:
            if self._mine is None:
                return
            if self._mine[0] == os.getpid():
                _held.discard(self._mine)
                with contextlib.suppress(OSError):
                    fcntl.lockf(self._file(), fcntl.LOCK_UN, 1, self._mine[3])
            self._mine = None

    def _try(self, at: int) -> tuple[int, str, str, int] | None:
        key = (os.getpid(), self._name, self._suffix, at)
        if key in _held:
            return None
        try:
            fcntl.lockf(self._file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)
        except BlockingIOError:  # another process holds it
            return None
        _held.add(key)
        return key

    def _file(self) -> int:
        key = (os.getpid(), self._name, self._suffix)
        if key not in _files:
            _files[key] = side_files.open_file(self._name, self._suffix, os.O_RDWR | os.O_CREAT)
        return _files[key]
