"""The trace file: what is written is read, a kill costs one record, damage costs itself."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shm_monitor import attach
from shm_monitor.errors import TraceError
from shm_monitor.schema import Metric, Schema, Unknown, why_unknown
from shm_monitor.traces.binary import Trace, deciding_metrics, read_trace, record_dtype
from shm_monitor.traces.recorder import Recorder, record
from tests.support.engine import MEMORY, metric
from tests.support.publishing import Bench
from tests.support.traces import TABLE, write

RECORD_BYTES = record_dtype(len(MEMORY)).itemsize


def test_what_is_recorded_is_read(tmp_path: Path) -> None:
    write(tmp_path / "t", 3)

    trace = read_trace(tmp_path / "t")

    assert trace.table == TABLE
    assert trace.times_ns.tolist() == [10**9, 2 * 10**9, 3 * 10**9]
    assert trace.realtime_ns.tolist() == [10**9 + 5, 2 * 10**9 + 5, 3 * 10**9 + 5]
    assert trace.verdicts.tolist() == [2 << 32] * 3
    assert trace.values[:, 0].tolist() == [1.0, 2.0, 3.0]
    assert why_unknown(float(trace.values[0, 1])) == Unknown.TIMEOUT
    assert (len(trace), trace.damaged_count, trace.interval_seconds) == (3, 0, 1.0)


def test_recording_goes_on_where_it_stopped(tmp_path: Path) -> None:
    write(tmp_path / "t", 3)
    write(tmp_path / "t", 2, first=4)

    assert read_trace(tmp_path / "t").values[:, 0].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("torn", [1, 40, RECORD_BYTES - 1])
def test_a_record_torn_by_a_kill_is_lost_alone(tmp_path: Path, torn: int) -> None:
    path = tmp_path / "t"
    write(path, 3)
    os.truncate(path, path.stat().st_size - torn)
    assert read_trace(path).values[:, 0].tolist() == [1, 2]

    write(path, 1, first=4)

    assert read_trace(path).values[:, 0].tolist() == [1, 2, 4]
    assert read_trace(path).damaged_count == 0


def test_a_head_torn_by_a_kill_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(TABLE.to_bytes()[:50])

    write(path, 2)

    assert len(read_trace(path)) == 2


def test_a_damaged_record_is_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "t"
    write(path, 5)
    with path.open("r+b") as file:
        file.seek(-2 * RECORD_BYTES - 30, os.SEEK_END)
        file.write(b"\xff\xff")

    trace = read_trace(path)

    assert trace.values[:, 0].tolist() == [1, 2, 4, 5]
    assert trace.damaged_count == 1


def test_a_damaged_end_is_cut_off_before_more_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "t"
    write(path, 3)
    with path.open("r+b") as file:
        file.seek(-20, os.SEEK_END)
        file.write(b"\xff")

    write(path, 1, first=9)

    assert read_trace(path).values[:, 0].tolist() == [1, 2, 9]


def test_a_reboot_goes_on_by_the_wall_clock(tmp_path: Path) -> None:
    path = tmp_path / "t"
    with Recorder(path, TABLE) as recorder:
        for mono, real in ((500, 1000), (501, 1001), (3, 1090), (4, 1091), (2, 1050)):
            values = np.zeros(len(MEMORY))
            recorder.write(values, number=1, epoch=1, mono_ns=mono * 10**9, realtime_ns=real * 10**9)

    assert (read_trace(path).times_ns // 10**9).tolist() == [500, 501, 590, 591, 592]


def test_two_recorders_do_not_share_a_file(tmp_path: Path) -> None:
    with Recorder(tmp_path / "t", TABLE), pytest.raises(TraceError, match="another process records"):
        Recorder(tmp_path / "t", TABLE)


def test_other_metrics_do_not_go_into_the_same_file(tmp_path: Path) -> None:
    write(tmp_path / "t", 1)

    with pytest.raises(TraceError, match="other metrics"):
        Recorder(tmp_path / "t", TABLE._replace(metrics=MEMORY[:2]))


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b"", "not a trace"),
        (b"time,memory.usage_bytes\n1,2\n", "not a trace"),
        (TABLE.to_bytes()[:100], "damaged or cut off"),
        (TABLE.to_bytes().replace(b"usage", b"osage"), "damaged or cut off"),
        (b"SHMTRACE\x09" + TABLE.to_bytes()[9:], "version 9"),
    ],
    ids=["empty", "text", "cut", "damaged", "later version"],
)
def test_what_is_no_trace_is_refused_with_a_next_step(tmp_path: Path, data: bytes, seen: str) -> None:
    path = tmp_path / "t"
    path.write_bytes(data)

    with pytest.raises(TraceError, match=seen) as caught:
        read_trace(path)
    assert caught.value.where == str(path)


def test_something_else_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_bytes(b"years of work")

    with pytest.raises(TraceError):
        Recorder(path, TABLE)
    assert path.read_bytes() == b"years of work"


@settings(max_examples=100)
@given(place=st.integers(0, 2**20), byte=st.integers(0, 255), cut=st.integers(0, 300))
def test_any_damage_gives_an_error_or_true_records(tmp_path: Path, place: int, byte: int, cut: int) -> None:
    path = tmp_path / "t"
    path.unlink(missing_ok=True)
    write(path, 4)
    data = bytearray(path.read_bytes())
    data[place % len(data)] = byte
    path.write_bytes(data[: len(data) - cut])
    try:
        trace = read_trace(path)
    except TraceError:
        return
    assert set(trace.values[:, 0].tolist()) <= {1.0, 2.0, 3.0, 4.0}


@pytest.mark.processes
def test_a_killed_recorder_loses_at_most_its_last_record(tmp_path: Path) -> None:
    path = tmp_path / "t"
    code = """
import sys
from pathlib import Path
from tests.support.traces import write
write(Path(sys.argv[1]), 10**9)
"""
    root = Path(__file__).parents[2]
    for _ in range(3):
        path.unlink(missing_ok=True)
        with subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=root) as process:
            try:
                _wait_for(lambda: path.exists() and path.stat().st_size > 100 * RECORD_BYTES)
            finally:
                process.send_signal(signal.SIGKILL)
        trace = read_trace(path)
        assert trace.damaged_count == 0
        assert trace.values[:, 0].tolist() == list(range(1, len(trace) + 1))
        assert len(trace) > 50


def _wait_for(happened: Callable[[], bool]) -> None:
    import time

    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_full_disk_leaves_a_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, written = tmp_path / "t", os.write
    write(path, 2)
    with Recorder(path, TABLE) as recorder:
        monkeypatch.setattr(os, "write", lambda file, data: written(file, data[:10]))
        with pytest.raises(OSError, match="No space left"):
            recorder.write([3.0] * 4, number=3, epoch=7, mono_ns=3 * 10**9, realtime_ns=3)
        monkeypatch.undo()
        recorder.write([4.0] * 4, number=4, epoch=7, mono_ns=4 * 10**9, realtime_ns=4)

    assert read_trace(path).values[:, 0].tolist() == [1, 2, 4]


def test_only_what_decides_is_recorded_by_default() -> None:
    metrics = (*MEMORY[:1], metric("cpu", "cpu_percent", rolled=True), *MEMORY[1:], metric("cpu", "load_1"))

    assert [one.name for one in deciding_metrics(metrics)] == [one.name for one in metrics[:-1]]


def memory_schema() -> Schema:
    """Return a schema with the metrics that decide and one that does not."""
    return Schema((*MEMORY, Metric("cpu", "load_1", "count", "a number", "a test")), (), ("memory",), {})


def test_the_ring_of_a_sampler_is_recorded_once(name: str, make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make_bench(name, memory_schema(), slot_count=8)
    for second in range(1, 13):
        bench.publish(mono_ns=second * 10**9, value=float(second))

    with attach(name) as reader:
        assert record(reader, tmp_path / "t", follow=False) == 8
        assert record(reader, tmp_path / "t", follow=False) == 0
        bench.publish(mono_ns=13 * 10**9, value=13.0)
        assert record(reader, tmp_path / "t", follow=False) == 1

    trace = read_trace(tmp_path / "t")
    assert trace.values[:, 0].tolist() == [5, 6, 7, 8, 9, 10, 11, 12, 13]
    assert [one.name for one in trace.table.metrics] == [one.name for one in MEMORY]
    assert trace.table.name == name


def test_a_file_that_got_no_sample_does_not_stay(tmp_path: Path) -> None:
    """As after a Ctrl-C right after its beginning; one that had samples stays as it was."""
    with Recorder(tmp_path / "t", TABLE):
        assert (tmp_path / "t").exists()
    assert not (tmp_path / "t").exists()

    write(tmp_path / "t", 2)
    with Recorder(tmp_path / "t", TABLE):
        pass
    assert len(read_trace(tmp_path / "t")) == 2


def test_everything_is_recorded_when_asked(name: str, make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    make_bench(name, memory_schema()).publish(mono_ns=10**9)
    with attach(name) as reader:
        record(reader, tmp_path / "t", follow=False, everything=True)

    assert read_trace(tmp_path / "t").table.metrics == memory_schema().metrics


def test_new_samples_are_followed_until_the_time_is_over(
    name: str, make_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    bench = make_bench(name, memory_schema(), slot_count=16)
    bench.publish(mono_ns=10**9, value=1.0)
    seconds = iter(range(100))

    def sleep(_: float) -> None:
        now = next(seconds)
        bench.publish(mono_ns=(2 + now) * 10**9, value=2.0 + now)

    with attach(name) as reader:
        clock = iter(range(100))
        written = record(reader, tmp_path / "t", seconds=4, sleep=sleep, clock=lambda: next(clock))

    assert written == 4
    assert read_trace(tmp_path / "t").values[:, 0].tolist() == [1, 2, 3, 4]


def test_a_trace_has_a_length_and_no_times_that_fall_back() -> None:
    trace = Trace(TABLE, np.array([1, 2]), np.zeros(2, np.uint64), np.zeros(2, np.uint64), np.zeros((2, 4)))

    assert len(trace) == 2
    assert math.isclose(trace.interval_seconds, 1.0)
