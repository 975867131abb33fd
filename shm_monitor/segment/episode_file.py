"""The side file ``NAME~episodes``: lines that a sampler appends and that stay when it ends; whoever likes reads them.

It is opened for each append, so that a log that was removed or replaced meanwhile costs nothing but its past. At
``SIZE_MAX_BYTES`` it is replaced, whole, by its newer half. What a killed sampler left half-written is a line of
its own to the next one, and no line to a reader.
"""

from __future__ import annotations

import os

from shm_monitor.errors import MonitorError
from shm_monitor.segment import side_files
from shm_monitor.segment.names import EPISODES_SUFFIX, side_path

SIZE_MAX_BYTES = 256 * 1024  # some 800 events; a container has 64 MB of /dev/shm
_READ_MAX_BYTES = 2 * SIZE_MAX_BYTES  # of a file that no sampler of ours made so large


def append(name: str, lines: bytes) -> None:
    """Append whole *lines*, each with its newline, to the log of *name*; made where it is missing. 8 us.

    Raises:
        MonitorError: it cannot be opened, or is not to be trusted.
        OSError: it cannot be written, such as for a full /dev/shm.
    """
    fd = side_files.open_file(name, EPISODES_SUFFIX, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        size = os.fstat(fd).st_size
        if size + len(lines) > SIZE_MAX_BYTES:
            kept = _newer_half(os.pread(fd, _READ_MAX_BYTES, max(size - _READ_MAX_BYTES, 0)))
            side_files.replace(name, EPISODES_SUFFIX, kept + lines)
            return
        is_torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        _write(fd, b"\n" + lines if is_torn else lines)
    finally:
        os.close(fd)


def lines_of(name: str) -> list[bytes]:
    """Return the whole lines in the log of *name*, oldest first; empty where there is no log.

    Raises:
        UntrustedError: the file or its directory belongs to somebody else, or something else lies there.
        SamplerError: the system refuses, such as for too many open files.
    """
    try:
        fd = side_files.open_file(name, EPISODES_SUFFIX, os.O_RDONLY)
    except FileNotFoundError:
        return []
    with open(fd, "rb") as file:
        return file.read(_READ_MAX_BYTES).split(b"\n")[:-1]


def state_of(name: str) -> tuple[int, int]:
    """Return what changes when the log of *name* does: its inode and its size; zeros where there is none."""
    try:
        found = os.stat(side_path(name, EPISODES_SUFFIX), follow_symlinks=False)
    except OSError:
        return 0, 0
    return found.st_ino, found.st_size


def _newer_half(data: bytes) -> bytes:
    """Return the lines of the last half of ``SIZE_MAX_BYTES``, less what is torn at either end."""
    kept = data[-(SIZE_MAX_BYTES // 2) :]
    begin = kept.find(b"\n") + 1 if len(kept) < len(data) else 0
    return kept[begin : kept.rfind(b"\n") + 1]


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


TROUBLE = (OSError, MonitorError)
"""What can be wrong with a log; none of it is a reason for a sampler to stop."""
