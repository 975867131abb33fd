"""Trace files whose values are their own numbers, so that a gap or a mixture shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shm_monitor.schema import Unknown, unknown
from shm_monitor.traces.binary import Table
from shm_monitor.traces.recorder import Recorder
from tests.support.engine import MEMORY

if TYPE_CHECKING:
    from pathlib import Path

TABLE = Table(MEMORY, 10**9, {"0": "GPU-a"}, "a sampler")


def write(path: Path, count: int, *, first: int = 1, table: Table = TABLE) -> None:
    """Append *count* samples, one a second, whose values are their number and then nothing known."""
    with Recorder(path, table) as recorder:
        for number in range(first, first + count):
            values = [float(number), *[unknown(Unknown.TIMEOUT)] * (len(table.metrics) - 1)]
            stamp = number * 10**9
            recorder.write(values, number=number, epoch=7, mono_ns=stamp, realtime_ns=stamp + 5, verdict=2 << 32)
