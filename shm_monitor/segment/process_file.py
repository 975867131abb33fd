"""The side file ``NAME~processes``: what the processes are called that a sampler shows. A sample holds numbers only.

The sampler reads the names, since a reader may be in another pid namespace, and a process may have ended meanwhile.
It replaces the file, whole, when a name in it changes, and removes it when it stops.
"""

from __future__ import annotations

import contextlib
import json
import os
from functools import lru_cache

from shm_monitor.errors import MonitorError
from shm_monitor.light import TYPE_CHECKING
from shm_monitor.process_names import ProcessName
from shm_monitor.segment import side_files
from shm_monitor.segment.names import PROCESSES_SUFFIX, side_path

if TYPE_CHECKING:
    from collections.abc import Mapping

_SIZE_MAX_BYTES = 1 << 20  # 16 workers and 8 processes of each GPU have some 10 KB


def write(name: str, processes: Mapping[int, ProcessName]) -> None:
    """Publish what *processes* of the sampler *name* are called, by pid. 30 us.

    Raises:
        OSError: it cannot be written, such as for a full /dev/shm.
        MonitorError: it cannot be opened, or is not to be trusted.
    """
    side_files.replace(name, PROCESSES_SUFFIX, json.dumps(processes).encode())


def remove(name: str) -> None:
    """Take the file away."""
    with contextlib.suppress(OSError):
        os.unlink(side_path(name, PROCESSES_SUFFIX))


def read(name: str) -> Mapping[int, ProcessName]:
    """Return what the processes are called, by pid; empty where nothing says so. 3 us unless it has changed."""
    try:
        found = os.stat(side_path(name, PROCESSES_SUFFIX), follow_symlinks=False)
    except OSError:
        return {}
    return _read(name, found.st_ino, found.st_mtime_ns)


@lru_cache(maxsize=8)
def _read(name: str, inode: int, changed_ns: int) -> Mapping[int, ProcessName]:  # noqa: ARG001 - they are the key
    try:
        with open(side_files.open_file(name, PROCESSES_SUFFIX, os.O_RDONLY), "rb") as file:
            table = json.loads(file.read(_SIZE_MAX_BYTES))
        return {int(pid): ProcessName(str(text), str(user)) for pid, (text, user) in table.items()}
    except (OSError, MonitorError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
