"""Reading the kernel's text files cheaply, and saying why a number could not be had.

A reading is a float; a missing one is the NaN of ``shm_monitor.schema.unknown``. Arithmetic need not keep the
payload of a NaN, so what is computed from readings goes through ``difference``, ``total`` or ``Rate``.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from shm_monitor.schema import Unknown, unknown, why_unknown

ERROR = unknown(Unknown.ERROR)
NOT_SUPPORTED = unknown(Unknown.NOT_SUPPORTED)
NO_PERMISSION = unknown(Unknown.NO_PERMISSION)
NOT_YET_SAMPLED = unknown(Unknown.NOT_YET_SAMPLED)
DISABLED = unknown(Unknown.DISABLED)

_ABSENT = {errno.ENOENT, errno.ENODEV, errno.ENOTDIR, errno.ESRCH, errno.EOPNOTSUPP, errno.ENXIO}
_REFUSED = {errno.EACCES, errno.EPERM}
_CHUNK = 1 << 16


class Roots(NamedTuple):
    """Where the kernel's file systems are; tests hand in recorded trees."""

    proc: str = "/proc"
    sys: str = "/sys"


def hosts_file(roots: Roots, name: str) -> bool:
    """Say whether /proc shows *name* of the host; mounted with ``subset=pid`` it shows processes only.

    Then the limits of cgroups are all that can be measured, and the host stays unknown.
    """
    return os.path.exists(f"{roots.proc}/{name}")


def why(error: OSError) -> float:
    """Return the unknown reading that *error* stands for."""
    if error.errno in _ABSENT:
        return NOT_SUPPORTED
    return NO_PERMISSION if error.errno in _REFUSED else ERROR


class ProcFile:
    """One file of procfs or cgroupfs, kept open: reading it again costs 1 to 5 us instead of 9 to 14 us.

    Files there have size 0. One that has a size is a recording: it is opened for each read, so that it can be replaced.
    """

    __slots__ = ("_fd", "_follow", "path")

    def __init__(self, path: str | Path, *, follow: bool = True) -> None:
        """Name the file; it is opened by the first read. Without *follow*, what came later under its name is not it."""
        self.path = str(path)
        self._fd = -1
        self._follow = follow

    def read(self) -> bytes:
        """Return the whole content as it is now.

        Raises:
            OSError: as from open(2) and pread(2); one that is followed was opened again before.
        """
        if self._fd < 0:
            return self._open_and_read()
        try:
            return _read_all(self._fd)
        except OSError:
            if not self._follow:
                raise
            self.close()
            return self._open_and_read()

    def _open_and_read(self) -> bytes:
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = _read_all(fd)
            if os.fstat(fd).st_size == 0:
                self._fd, fd = fd, -1
        finally:
            if fd >= 0:
                os.close(fd)
        return data

    def close(self) -> None:
        """Give the descriptor back; a later read opens the file again."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        """Close what nobody closed."""
        self.close()


def _read_all(fd: int) -> bytes:
    """Return the file from its start. A seq_file hands out at most a page per read, so read until nothing comes."""
    data = part = os.pread(fd, _CHUNK, 0)
    while part:
        part = os.pread(fd, _CHUNK, len(data))
        data += part
    return data


def lines(data: bytes) -> list[str]:
    """Return the lines of a text that the kernel wrote, without the newlines.

    Only a newline ends a line there: ``str.splitlines`` and text files also cut at form feeds, carriage returns and
    Unicode's separators, all of which a cgroup's name may hold.
    """
    return os.fsdecode(data).removesuffix("\n").split("\n")


def number(data: bytes, key: bytes) -> float:
    """Return the number that follows *key*, which holds what is before it (``b"\\ninactive_file "``).

    The text of a file's first line has no newline before it: hand in ``b"\\n" + data`` where that line matters.
    """
    start = data.find(key)
    if start < 0:
        return NOT_SUPPORTED
    try:
        return float(data[start + len(key) : start + len(key) + 40].split(None, 1)[0])
    except (ValueError, IndexError):
        return ERROR


def numbers(file: ProcFile, keys: Sequence[bytes]) -> list[float]:
    """Return one number for each key of *file*, each of them guarded alone."""
    try:
        data = b"\n" + file.read()
    except OSError as error:
        return [why(error)] * len(keys)
    return [number(data, key) for key in keys]


def words(file: ProcFile, count: int) -> list[float]:
    """Return the first *count* words of *file* as numbers, each of them guarded alone; ``max`` is infinity."""
    try:
        parts = file.read().split(None, count)
    except OSError as error:
        return [why(error)] * count
    return [_word(parts, index) for index in range(count)]


def _word(parts: Sequence[bytes], index: int) -> float:
    try:
        return float("inf") if parts[index] == b"max" else float(parts[index])
    except (ValueError, IndexError):
        return ERROR


def number_of(file: ProcFile) -> float:
    """Return the one number that *file* holds; ``max`` is infinity."""
    return words(file, 1)[0]


def is_known(value: float) -> bool:
    """Say whether *value* is a reading (a NaN is not)."""
    return value == value  # noqa: PLR0124  (50 ns less than math.isnan, thirty times a sample)


def difference(left: float, right: float) -> float:
    """Return *left* - *right*, or the first of them that is unknown."""
    if not is_known(left):
        return left
    return left - right if is_known(right) else right


def total(values: Iterable[float]) -> float:
    """Return the sum of *values*, or the first of them that is unknown; nothing at all is NOT_SUPPORTED."""
    result = NOT_SUPPORTED
    for value in values:
        if not is_known(value):
            return value
        result = result + value if is_known(result) else value
    return result


class Rate:
    """What a counter grew per second since it was asked before; ``Rate()(value, now_ns)``."""

    __slots__ = ("_then_ns", "_value")

    def __init__(self) -> None:
        self._value = NOT_YET_SAMPLED
        self._then_ns = 0

    def __call__(self, value: float, now_ns: int) -> float:
        """Return the growth per second, or unknown: first sample, missing value, or a counter that went backwards."""
        before, elapsed_ns = self._value, now_ns - self._then_ns
        self._value, self._then_ns = value, now_ns
        if not is_known(value):
            return value
        if not is_known(before) or elapsed_ns <= 0:
            return NOT_YET_SAMPLED
        return (value - before) * 1e9 / elapsed_ns if value >= before else ERROR


def sum_of_rates(rates: Iterable[float]) -> float:
    """Return the sum of *rates*; what came only now (NOT_YET_SAMPLED) is left out, any other unknown is the answer."""
    result = pending = NOT_SUPPORTED
    for rate in rates:
        if is_known(rate):
            result = result + rate if is_known(result) else rate
        elif why_unknown(rate) is Unknown.NOT_YET_SAMPLED:
            pending = rate
        else:
            return rate
    return result if is_known(result) else pending


def percent(part: float, whole: float) -> float:
    """Return *part* of *whole* in percent, held to 0..100 (ticks and periods end a little before or after a sample)."""
    if not is_known(part):
        return part
    if not is_known(whole):
        return whole
    if whole <= 0:
        return ERROR
    return min(100.0, max(0.0, 100.0 * part / whole))
