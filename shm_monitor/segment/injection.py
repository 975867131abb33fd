"""False readings on purpose, so that users can try how their workers react.

A side file says which metrics read what, and until when. The sampler obeys it only with
``allow_injection``, and marks each sample that it touched (``flags.INJECTED``).
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from shm_monitor.errors import MonitorError
from shm_monitor.segment import side_files
from shm_monitor.segment.names import INJECT_SUFFIX, side_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SIZE_MAX_BYTES = 1 << 20  # 10,000 metrics


class Injection(NamedTuple):
    """Readings by flat metric name (``memory.usage_bytes``), and when they end, on the monotonic clock."""

    values: dict[str, float]
    until_mono_ns: int


def write(name: str, values: Mapping[str, float], seconds: float) -> None:
    """Tell the sampler *name* to read *values* for *seconds*; replaces what was told before, whole.

    Raises:
        UntrustedError: the file or its directory belongs to somebody else, or something else lies there.
        NoSpaceError: shared memory is full.
    """
    told = {"values": dict(values), "until_mono_ns": time.monotonic_ns() + int(seconds * 1e9)}
    try:
        side_files.replace(name, INJECT_SUFFIX, json.dumps(told).encode())
    except OSError as error:
        raise side_files.refusal(name, side_path(name, INJECT_SUFFIX), error) from error


def end(name: str) -> None:
    """Take back what was injected."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(side_path(name, INJECT_SUFFIX))


def read(name: str) -> Injection | None:
    """Return what is injected into *name*, or None: nothing, not ours, no injection, or over."""
    found = read_last(name)
    return found if found is not None and found.until_mono_ns > time.monotonic_ns() else None


def read_last(name: str) -> Injection | None:
    """Return what is or was injected into *name* last, or None: nothing, taken back, not ours, no injection."""
    try:
        with open(side_files.open_file(name, INJECT_SUFFIX, os.O_RDONLY), "rb") as file:
            table = json.loads(file.read(_SIZE_MAX_BYTES))
        values = {str(key): float(value) for key, value in table["values"].items()}
        return Injection(values, int(table["until_mono_ns"]))
    except (OSError, MonitorError, ValueError, OverflowError, TypeError, KeyError, AttributeError, RecursionError):
        return None


class Injector:
    """The sampler's side: puts injected readings in the place of real ones. One stat, 2 us, per sample."""

    def __init__(
        self, name: str, places: Mapping[str, int], *, period_ns: int = 0, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """Inject into *name*, whose metrics have these *places* among the values of a sample."""
        self._name = name
        self._path = side_path(name, INJECT_SUFFIX)
        self._places = places
        self._clock = clock
        self._period_ns = period_ns
        self._seen: tuple[int, int] | None = None
        self._last: Injection | None = None
        self._counts_until_ns = 0

    @property
    def counts(self) -> bool:
        """True while the observation period holds an injected reading: the verdict may rest on it."""
        return self._clock() < self._counts_until_ns

    def current(self) -> dict[int, float]:
        """Return the injected readings by place; empty when there are none."""
        try:
            found = os.stat(self._path, follow_symlinks=False)
        except OSError:
            self._seen = self._last = None
            return {}
        if (found.st_ino, found.st_mtime_ns) != self._seen:
            self._seen = found.st_ino, found.st_mtime_ns
            self._last = read_last(self._name)
        if self._last is None:
            return {}
        now, until = self._clock(), self._last.until_mono_ns
        readings = {self._places[name]: value for name, value in self._last.values.items() if name in self._places}
        if readings:
            self._counts_until_ns = max(min(now, until) + self._period_ns, self._counts_until_ns)
        return readings if now < until else {}
