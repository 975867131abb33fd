"""Collectors that misbehave, for samplers in another process: ``("tests.support.fake_collectors:hangs",)``."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shm_monitor.collectors.base import Array
from shm_monitor.schema import Metric

FREEZE_VARIABLE = "TEST_FREEZES_ONCE"  # names the file that says that it has frozen once


class FakeCollector:
    """A collector of one metric whose readings come from a function."""

    def __init__(
        self,
        collect: Callable[[Array], None],
        *,
        name: str = "fake",
        threaded: bool = False,
        interval_seconds: float | None = None,
    ) -> None:
        self.name = name
        self.threaded = threaded
        self.interval_seconds = interval_seconds
        self.metrics: Sequence[Metric] = (Metric("fake", f"{name}_count", "count", "made up", "a test"),)
        self.facts: Mapping[str, Any] = {}
        self.calls_count = 0
        self.closed = False
        self._collect = collect

    def collect(self, out: Array) -> None:
        self.calls_count += 1
        self._collect(out)

    def close(self) -> None:
        self.closed = True


def _forever_in_c(out: Array) -> None:
    ctypes.CDLL(None).pause()


def _forever_with_the_gil(out: Array) -> None:
    ctypes.PyDLL(None).pause()


def _raise(out: Array) -> None:
    raise OSError("the driver is gone")


def hangs() -> FakeCollector:
    """Return one whose first call never comes back."""
    return FakeCollector(_forever_in_c, name="hangs", threaded=True)


def hangs_too() -> FakeCollector:
    """Return another one of the same name."""
    return hangs()


def freezes() -> FakeCollector:
    """Return one that stops the whole process some turns later, once: it never gives the interpreter back."""
    turns = []

    def collect(out: Array) -> None:
        turns.append(1)
        out[0] = len(turns)
        mark = Path(os.environ[FREEZE_VARIABLE])
        if len(turns) == 3 and not mark.exists():
            mark.touch()
            _forever_with_the_gil(out)

    return FakeCollector(collect, name="freezes")


def raises() -> FakeCollector:
    """Return one that never succeeds."""
    return FakeCollector(_raise, name="raises")


def prints() -> FakeCollector:
    """Return one that prints more than a pipe holds."""

    def collect(out: Array) -> None:
        print("x" * 200_000, flush=True)
        out[0] = 1.0

    return FakeCollector(collect, name="prints")


def slow() -> FakeCollector:
    """Return one that takes longer than three turns of 50 ms, in the sampling loop itself."""

    def collect(out: Array) -> None:
        time.sleep(0.17)
        out[0] = 1.0

    return FakeCollector(collect, name="slow")


def does_not_close() -> FakeCollector:
    """Return one whose close fails."""
    made = FakeCollector(lambda out: None, name="stubborn")
    made.close = lambda: _raise(None)  # type: ignore[method-assign,arg-type]
    return made


def missing() -> FakeCollector:
    """Fail to be made at all."""
    raise RuntimeError("no such device")
