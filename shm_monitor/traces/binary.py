"""Recorded traces: the readings of a sampler in a file, to decide again over them later.

::

    "SHMTRACE" | u32 version, u32 size of the table | table: JSON | u32 crc32 of all before, u32 zero
    records, all of one size:
      u64 number | u64 epoch | u64 mono_ns | u64 realtime_ns | u64 verdict | f64 values[M] | u64 crc32 of all before

Little-endian; a record is written with one call, so a kill costs the last record at most, and a file is appended to
by cutting what is torn off its end. With the ten or so metrics that decide, a day at 1 Hz takes 10 MB.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, Self
from zlib import crc32

import msgspec
import numpy as np
from numpy.typing import NDArray

from shm_monitor.errors import TraceError
from shm_monitor.schema import Metric

if TYPE_CHECKING:
    from shm_monitor.segment.view import View

MAGIC = b"SHMTRACE"
VERSION = 1
METRICS_MAX = 65_536  # a host with 8 GPUs and 200 cores has some 1,500
INTERVAL_NS_MAX = 3_600 * 10**9  # that of CHECK_INTERVAL
_HEAD = struct.Struct("<8sII")
_TAIL = struct.Struct("<II")

# What a decision reads beside the rolled metrics.
_DECIDING = frozenset(
    {
        ("memory", "capacity_bytes"),
        ("memory", "reclaim_events_count"),
        ("memory", "oom_events_count"),
        ("stall", "memory_some_percent"),
    }
)


class Table(NamedTuple):
    """What a trace says about itself.

    Args:
        metrics: in the order of the values, the rolled ones first.
        interval_ns: between two samples.
        devices: the UUID of each GPU by its instance.
        name: of the sampler.
    """

    metrics: tuple[Metric, ...]
    interval_ns: int
    devices: dict[str, str]
    name: str

    @classmethod
    def of(cls, view: View, *, everything: bool = False) -> Self:
        """Return the table of a trace of *view*: of *everything* that is measured, or of what decides."""
        metrics = view.schema.metrics
        devices = view.schema.facts.get("gpu", {}).get("devices", ())
        uuids = {str(device["instance"]): str(device["uuid"]) for device in devices}
        return cls(metrics if everything else deciding_metrics(metrics), view.header.interval_ns, uuids, view.name)

    def to_bytes(self) -> bytes:
        """Return the head of a file with this table."""
        data = json.dumps(self._asdict() | {"metrics": [one._asdict() for one in self.metrics]}).encode()
        data += b" " * (-len(data) % 8)  # so that the records are aligned
        head = _HEAD.pack(MAGIC, VERSION, len(data)) + data
        return head + _TAIL.pack(crc32(head), 0)


@dataclass(frozen=True)
class Trace:
    """A trace in memory; n samples, oldest first.

    Attributes:
        table: what it says about itself.
        times_ns: shape (n,), int64, strictly rising: the monotonic clock, on which a reboot goes on from where it was.
        realtime_ns: shape (n,), uint64, unix time.
        verdicts: shape (n,), uint64, what the sampler decided; zeros for a table of text.
        values: shape (n, metrics); NaN is unknown.
        damaged_count: records that were left out because their crc is wrong.
    """

    table: Table
    times_ns: NDArray[np.int64]
    realtime_ns: NDArray[np.uint64]
    verdicts: NDArray[np.uint64]
    values: NDArray[np.float64]
    damaged_count: int = 0
    source: str = field(default="", compare=False)

    def __len__(self) -> int:
        return len(self.times_ns)

    @property
    def interval_seconds(self) -> float:
        """Seconds between two samples, as the sampler meant it."""
        return self.table.interval_ns / 1e9


def deciding_metrics(metrics: tuple[Metric, ...]) -> tuple[Metric, ...]:
    """Return those of *metrics* that a decision reads: a tenth of them."""
    return tuple(metric for metric in metrics if metric.rolled or (metric.group, metric.field) in _DECIDING)


def record_dtype(metric_count: int) -> np.dtype[np.void]:
    """Return the numpy type of one record."""
    words = [(name, "<u8") for name in ("number", "epoch", "mono_ns", "realtime_ns", "verdict")]
    return np.dtype([*words, ("values", "<f8", (metric_count,)), ("crc", "<u8")])


def read_table(data: bytes, where: str) -> tuple[Table, int]:
    """Return the table at the start of *data* and where the records begin.

    Raises:
        TraceError: this is no trace, one of a later version, or its head is damaged.
    """
    if len(data) < _HEAD.size or not data.startswith(MAGIC):
        raise TraceError(where, "not a trace of shm-monitor", "record one with: shm-monitor record FILE")
    _, version, size = _HEAD.unpack_from(data)
    if version != VERSION:
        raise TraceError(where, f"version {version} of the format", f"this shm-monitor reads version {VERSION}")
    end = _HEAD.size + size
    if len(data) < end + _TAIL.size or _TAIL.unpack_from(data, end)[0] != crc32(data[:end]):
        raise TraceError(where, "its head is damaged or cut off", "nothing can be read without it; record anew")
    return _table_of(data[_HEAD.size : end], where), end + _TAIL.size


class _MetricText(msgspec.Struct, forbid_unknown_fields=True):
    """A metric, as the table has it."""

    group: str
    field: str
    unit: str
    help: str
    source: str
    instance: str = ""
    integer: bool = False
    rolled: bool = False


class _TableText(msgspec.Struct, forbid_unknown_fields=True):
    """The table, as the head of the file has it."""

    metrics: Annotated[list[_MetricText], msgspec.Meta(min_length=1, max_length=METRICS_MAX)]
    interval_ns: Annotated[int, msgspec.Meta(ge=1, le=INTERVAL_NS_MAX)]
    devices: dict[str, str]
    name: str


def _table_of(data: bytes, where: str) -> Table:
    """Return the table that *data* spells; its crc holds, which anybody can see to.

    Raises:
        TraceError: it is none, or not one that a recorder writes.
    """
    try:
        found = msgspec.json.decode(data, type=_TableText)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TraceError(where, f"its head makes no sense ({error})", "a table of metrics; record anew") from None
    metrics = tuple(Metric(**msgspec.structs.asdict(one)) for one in found.metrics)
    return Table(metrics, found.interval_ns, found.devices, found.name)


def sound(records: NDArray[np.void]) -> NDArray[np.bool_]:
    """Return for each of *records* whether its crc holds. 0.3 us each."""
    size = records.dtype.itemsize
    rows = memoryview(records.tobytes())
    body = size - 8
    crcs = (crc32(rows[start : start + body]) for start in range(0, len(rows), size))
    good: NDArray[np.bool_] = np.fromiter(crcs, np.uint64, len(records)) == records["crc"]
    return good


def read_trace(path: str | Path) -> Trace:
    """Return the trace in the file *path*.

    Raises:
        TraceError: the file is no trace, or its head is damaged.
        OSError: it cannot be read.
    """
    path = Path(path)
    data = path.read_bytes()
    table, start = read_table(data, str(path))
    dtype = record_dtype(len(table.metrics))
    records = np.frombuffer(data, dtype, (len(data) - start) // dtype.itemsize, start)
    good = sound(records)  # what is torn off at the end is no record
    kept = records[good]
    return Trace(
        table,
        rising_times(kept["mono_ns"], kept["realtime_ns"], table.interval_ns),
        kept["realtime_ns"].copy(),
        kept["verdict"].copy(),
        kept["values"].copy(),
        damaged_count=int((~good).sum()),
        source=str(path),
    )


def rising_times(mono_ns: NDArray[np.uint64], realtime_ns: NDArray[np.uint64], interval_ns: int) -> NDArray[np.int64]:
    """Return *mono_ns* as int64; where it does not rise (a reboot), the wall clock says how much time went by."""
    times = mono_ns.astype(np.int64)
    steps = np.diff(times)
    back = steps <= 0
    steps[back] = np.maximum(np.diff(realtime_ns.astype(np.int64))[back], interval_ns)
    return np.concatenate([times[:1], times[:1] + np.cumsum(steps)]) if back.any() else times
