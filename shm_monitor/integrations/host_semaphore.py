"""A semaphore that the processes and threads of one user on one host share; a process that dies gives its place back.

Each place is a byte of a side file under a record lock of the kernel.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading

from shm_monitor.errors import MonitorError
from shm_monitor.forks import renew_in_child
from shm_monitor.segment import record_locks

_log = logging.getLogger("shm_monitor")

_lock = threading.Lock()
_held: set[tuple[int, str, str, int]] = set()  # by process: a record lock does not keep out its own process


def _unlocked_in_child(_: object) -> None:
    """Take a lock of one's own: another thread of the parent may have held its."""
    global _lock  # noqa: PLW0603 - as threading itself does
    _lock = threading.Lock()


renew_in_child(sys.modules[__name__], _unlocked_in_child)


class HostSemaphore:
    """At most *count* holders at once."""

    def __init__(self, name: str, suffix: str, count: int) -> None:
        """Share the places of the sampler *name* that go by *suffix*."""
        self._name, self._suffix = name, suffix
        self._count = count
        self._mine: tuple[int, str, str, int] | None = None

    def take(self) -> bool:
        """Take a place unless one is held already; return whether one is."""
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
        """Let another have the place."""
        with _lock:
            if self._mine is None:
                return
            if self._mine[0] == os.getpid():
                _held.discard(self._mine)
                with contextlib.suppress(OSError):
                    record_locks.unlock(self._name, self._suffix, self._mine[3])
            self._mine = None

    def _try(self, at: int) -> tuple[int, str, str, int] | None:
        key = (os.getpid(), self._name, self._suffix, at)
        if key in _held or not record_locks.lock(self._name, self._suffix, at):
            return None
        _held.add(key)
        return key
