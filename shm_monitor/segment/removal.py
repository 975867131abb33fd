"""Remove what a sampler that is no more left behind."""

from __future__ import annotations

import contextlib
import os

from shm_monitor.errors import MonitorError
from shm_monitor.forks import importing
from shm_monitor.segment import names, process_file
from shm_monitor.segment.lock import Lock


def unlink_object(name: str) -> None:
    """Remove the shared-memory object *name* if it exists; who has it mapped keeps it."""
    with importing:
        from _posixshmem import shm_unlink  # what SharedMemory.unlink calls, less the tracker

    with contextlib.suppress(FileNotFoundError):
        shm_unlink(f"/{name}")


def remove_left_behind(name: str) -> None:
    """Remove what a killed sampler left, as a clean stop does, unless another process has the name by now."""
    try:
        lock = Lock(name)
    except MonitorError:
        return
    try:
        for suffix in ("", names.NEW_SUFFIX):
            with contextlib.suppress(OSError):  # somebody else's, or no file at all: not what our sampler left
                unlink_object(names.object_name(name) + suffix)
        process_file.remove(name)
        with contextlib.suppress(OSError):
            os.unlink(names.side_path(name, names.CONFIG_SUFFIX))
    finally:
        lock.release()
