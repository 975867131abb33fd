"""Traces from text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shm_monitor.errors import TraceError
from shm_monitor.traces.text import read_csv


def test_a_table_of_text_is_a_trace_with_the_rolled_metrics_first(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "time,memory.capacity_bytes,memory.usage_bytes,gpu:0.memory_percent\n0,100,60,\n# noon\n\n0.5,100,61,7\n"
    )

    trace = read_csv(path)

    assert [metric.name for metric in trace.table.metrics] == [
        "memory.usage_bytes",
        "gpu:0.memory_percent",
        "memory.capacity_bytes",
    ]
    assert [metric.rolled for metric in trace.table.metrics] == [True, True, False]
    np.testing.assert_array_equal(trace.values, [[60, np.nan, 100], [61, 7, 100]])
    assert trace.times_ns.tolist() == [0, 500_000_000]
    assert trace.interval_seconds == 0.5


def test_times_may_be_dates(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("time,cpu.cpu_percent\n2025-03-01T12:00:00+00:00,1\n2025-03-01T12:00:02+00:00,2\n")

    trace = read_csv(path)

    assert trace.realtime_ns.tolist() == [1_740_830_400 * 10**9, 1_740_830_402 * 10**9]
    assert trace.interval_seconds == 2.0


@pytest.mark.parametrize(
    ("text", "where", "seen"),
    [
        ("", "", "no line"),
        ("seconds,cpu.cpu_percent\n", "", "columns seconds"),
        ("time,cpu\n", "", "column 'cpu'"),
        ("time,cpu.a,cpu.a\n", "", "columns time,cpu.a,cpu.a"),
        ("time,cpu.a\n1,2\nnoon,3\n", "line 3", "time 'noon'"),
        ("time,cpu.a\n-1,2\n", "line 2", "time '-1'"),
        ("time,cpu.a\n1,2\n\n1,3\n", "line 4", "does not rise"),
        ("time,cpu.a\n1,2,3\n", "line 2", "3 fields"),
        ("time,cpu.a\n1,two\n", "line 2", "two"),
        ("time,cpu.a\n1,inf\n", "line 2", "infinite"),
        ("time,cpu.a\n1,1_000\n", "line 2", "1_000"),
        ("time,cpu.a\n1_000,1\n", "line 2", "time '1_000'"),
        ("time,memory.capacity_bytes,usage_bytes\n1,10,-5\n", "line 2", "negative size"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path, text: str, where: str, seen: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)

    with pytest.raises(TraceError) as caught:
        read_csv(path)
    assert seen in str(caught.value)
    assert where in caught.value.where


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xff\xfe\x00binary")

    with pytest.raises(TraceError, match="no text"):
        read_csv(path)


def test_a_bare_field_will_do_where_only_one_metric_that_decides_has_it(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("time, cpu_percent,usage_bytes,capacity_bytes,usage_bytes_per_second\n0,1,2,3,4\n")

    assert {metric.name for metric in read_csv(path).table.metrics} == {
        "cpu.cpu_percent",
        "memory.usage_bytes",
        "memory.capacity_bytes",
        "network.usage_bytes_per_second",
    }


@pytest.mark.parametrize(
    "columns", ["cpu_percent,cpu.cpu_percent", "memory_percent", "utilization_percent", "rss_bytes"]
)
def test_a_bare_field_that_could_be_several_is_refused(tmp_path: Path, columns: str) -> None:
    """Of which GPU, of which process; and not twice the same."""
    path = tmp_path / "t.csv"
    path.write_text(f"time,{columns}\n")

    with pytest.raises(TraceError, match="columns are time"):
        read_csv(path)


def test_a_quote_ends_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('time,cpu.a\n1,2\n"2,3\n4,5\n')

    with pytest.raises(TraceError, match="line 3"):
        read_csv(path)
