"""Traces from text: ``time,metric...``, one line per sample, so that numbers from anywhere can be decided over."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from shm_monitor.errors import TraceError
from shm_monitor.schema import Metric
from shm_monitor.traces.binary import Table, Trace

# What limits look at, by group and field; everything else is only read.
_ROLLED = frozenset(
    {
        ("memory", "usage_bytes"),
        ("cpu", "cpu_percent"),
        ("network", "usage_bytes_per_second"),
        ("gpu", "utilization_percent"),
        ("gpu", "memory_percent"),
    }
)

_BESIDE = (("memory", "capacity_bytes"), ("memory", "reclaim_events_count"), ("memory", "oom_events_count"))
_SIZES = frozenset({"bytes", "bytes_per_second", "count", "percent"})  # units of what is never below zero
_FIELD = "a field is a number, or empty for unknown; no size is negative"
_GROUP_OF = {field: group for group, field in (*_ROLLED, *_BESIDE) if group != "gpu"}
"""What decides, by its bare field: ``cpu_percent`` is ``cpu.cpu_percent``; a GPU's fields say not which GPU's."""


def read_csv(path: str | Path) -> Trace:
    """Return the trace in the text file *path*.

    The first column is ``time``: seconds, or ISO 8601 such as ``2025-03-01T12:00:00+00:00``. The others are named like
    the metrics of a snapshot: ``memory.usage_bytes``, ``memory.capacity_bytes``, ``gpu:0.memory_percent``; the bare
    field will do where only one that decides has it: ``cpu_percent``, ``usage_bytes``. An empty field is unknown. Lines
    that begin with ``#`` are skipped.

    Raises:
        TraceError: a column or a field that cannot be read, or times that do not rise; it names the line.
        OSError: the file cannot be read.
    """
    where = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TraceError(where, f"no text: {error}", "a table of text in UTF-8: time,memory.usage_bytes") from None
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip() and line[0] != "#"]
    rows = [(number, _fields(line, f"{where}, line {number}")) for number, line in lines]
    if not rows:
        raise TraceError(where, "no line of text", "the first one names the columns: time,memory.usage_bytes")
    metrics, order = _metrics(rows[0][1], where)
    times = np.array([_time(row[0], f"{where}, line {number}") for number, row in rows[1:]])
    columns = [metrics[order.index(place)] for place in range(len(order))]  # as in the file
    values = np.array([_values(row, columns, f"{where}, line {number}") for number, row in rows[1:]])
    for place in np.flatnonzero(np.diff(times) <= 0):
        allowed = "times rise from line to line; sort the file"
        raise TraceError(f"{where}, line {rows[place + 2][0]}", f"time {rows[place + 2][1][0]} does not rise", allowed)
    interval_seconds = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    times_ns = np.array([round(time * 1e9) for time in times], np.int64)
    return Trace(
        Table(metrics, round(interval_seconds * 1e9), {}, Path(path).stem),
        times_ns,
        times_ns.astype(np.uint64),
        np.zeros(len(times), np.uint64),
        values.reshape(len(times), len(metrics))[:, order],
        source=where,
    )


def _fields(line: str, where: str) -> list[str]:
    """Return the fields of one *line*; a quote ends with it."""
    try:
        return next(csv.reader([line]))
    except csv.Error as error:
        raise TraceError(where, str(error), "a line of fields with commas between") from None


def _metrics(names: list[str], where: str) -> tuple[tuple[Metric, ...], list[int]]:
    """Return the metrics that the columns *names* stand for, the rolled ones first, and the columns they come from."""
    allowed = "columns are time, then metrics as in a snapshot: time,memory.usage_bytes,memory.capacity_bytes"
    full = [f"{_GROUP_OF[name]}.{name}" if name in _GROUP_OF else name for name in map(str.strip, names)]
    if not names or full[0].lower() != "time" or len(set(full)) != len(full):
        raise TraceError(where, f"columns {','.join(names)}", allowed)
    found = []
    for name in full[1:]:
        head, _, field = name.rpartition(".")
        group, _, instance = head.partition(":")
        if not group or not field:
            raise TraceError(where, f"column {name!r}", allowed)
        unit = "bytes_per_second" if field.endswith("bytes_per_second") else field.rpartition("_")[2]
        found.append(Metric(group, field, unit, "", where, instance=instance, rolled=(group, field) in _ROLLED))
    order = sorted(range(len(found)), key=lambda place: not found[place].rolled)
    return tuple(found[place] for place in order), order


def _time(text: str, where: str) -> float:
    """Return the unix time, or the seconds from any start, that *text* says."""
    try:
        time = _number(text)
    except ValueError:
        try:
            time = datetime.fromisoformat(text.strip()).timestamp()
        except ValueError:
            time = math.nan
    if not 0 <= time < 2**33:  # until the year 2242
        raise TraceError(where, f"time {text!r}", "a time is seconds, or ISO 8601 like 2025-03-01T12:00:00+00:00")
    return time


def _number(text: str) -> float:
    """Return the number that *text* says; ``1_000``, which only Python reads, is none."""
    if "_" in text:
        raise ValueError(f"field {text!r}")
    return float(text)


def _values(row: list[str], metrics: Sequence[Metric], where: str) -> list[float]:
    """Return the fields of *row* after the first, one for each of *metrics*; an empty one is NaN."""
    if len(row) != len(metrics) + 1:
        raise TraceError(where, f"{len(row)} fields", f"{len(metrics) + 1} are named in the first line")
    try:
        values = [_number(text) if text.strip() else math.nan for text in row[1:]]
    except ValueError as error:
        raise TraceError(where, str(error), _FIELD) from None
    if any(map(math.isinf, values)):
        raise TraceError(where, "an infinite reading", _FIELD)
    if any(value < 0 for value, metric in zip(values, metrics, strict=True) if metric.unit in _SIZES):
        raise TraceError(where, "a negative size", _FIELD)
    return values
