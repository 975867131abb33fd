"""Whatever a trace file holds, one with a right crc too: a report or a TraceError."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path
from zlib import crc32

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm_monitor.config.resource import ResourceConfig
from shm_monitor.errors import TraceError
from shm_monitor.traces.binary import MAGIC, VERSION, record_dtype
from shm_monitor.traces.replay import load, replay
from tests.support.fuzzing import run_for
from tests.support.traces import TABLE, write

pytestmark = pytest.mark.thorough

SECONDS = 15.0
CONFIGS = (
    ResourceConfig(max_cpu_usage_percent=50, max_memory_usage_mb=1, max_network_usage_bytes_per_second=1e3),
    ResourceConfig(observation_period=0.001, check_interval=0.001, max_gpu_usage_percent=1, forecast_horizon=3600),
)


def good_bytes() -> bytes:
    """Return a trace that a recorder wrote."""
    with tempfile.TemporaryDirectory() as place:
        write(Path(place) / "t", 20)
        return (Path(place) / "t").read_bytes()


GOOD = good_bytes()
WORDS = st.sampled_from([0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, 10**9, 2 * 10**9]) | st.integers(0, 2**64 - 1)
ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """Return a head with a right crc, whose table is wrong in a place or two."""
    table = msgspec.json.decode(
        msgspec.json.encode(TABLE._asdict() | {"metrics": [m._asdict() for m in TABLE.metrics]})
    )
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.sampled_from(["metrics", "interval_ns", "devices", "name", "more", "row", "group", "field"]))
        if place in {"group", "field"} and table["metrics"] and isinstance(table["metrics"], list):
            groups = ["memory", "cpu", "network", "gpu", "", "."]
            fields = ["usage_bytes", "capacity_bytes", "cpu_percent", "memory_percent", "utilization_percent", ""]
            row = draw(st.sampled_from(table["metrics"]))
            if not isinstance(row, dict):  # another place has replaced it
                continue
            row[place] = draw(st.sampled_from(groups if place == "group" else fields))
            row["rolled"], row["instance"] = draw(st.booleans()), draw(st.sampled_from(["", "0"]))
        elif place == "row" and isinstance(table["metrics"], list):
            table["metrics"].append(draw(ODD))
            break
        else:
            table[place] = draw(ODD)
    text = msgspec.json.encode(table)
    head = struct.pack("<8sII", MAGIC, VERSION, len(text)) + text
    return head + struct.pack("<II", crc32(head), 0)


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """Return records with right crcs, whose numbers are any."""
    count = len(TABLE.metrics)
    rows = []
    for _ in range(draw(st.integers(0, 12))):
        words = [draw(WORDS) for _ in range(5)]
        values = [draw(st.floats() | st.floats(0, 1e12)) for _ in range(count)]
        body = struct.pack(f"<5Q{count}d", *words, *values)
        rows.append(body + struct.pack("<Q", crc32(body)))
    return b"".join(rows)


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """Return a good trace, spoilt in a few places."""
    data = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 9))] = draw(st.binary(max_size=9))
    return bytes(data)


HEAD = GOOD[: len(GOOD) - 20 * record_dtype(len(TABLE.metrics)).itemsize]
TRACES = st.builds(bytes.__add__, tables() | st.just(HEAD), records()) | spoilt() | st.binary(max_size=300)

CELLS = st.floats().map(str) | st.sampled_from(["", " ", "nan", "1e400", "x", '"', "1,2", "#", "2025-03-01", "\0"])
TIMES = st.integers(0, 2**34).map(str) | st.floats().map(str) | st.sampled_from(["2025-03-01T12:00:00+00:00", "", "-1"])
COLUMNS = st.sampled_from(
    ["time", "cpu_percent", "memory.usage_bytes", "gpu:0.memory_percent", "a.b", ".", ":.", "", "#"]
)
LINES = st.tuples(TIMES, st.lists(CELLS, max_size=3)).map(lambda row: ",".join([row[0], *row[1]]))
GOOD_LINES = st.lists(st.floats(0, 1e9), max_size=9).map(
    lambda values: [f"{number},{value},{value * 2}" for number, value in enumerate(values)]
)
HEADS = st.lists(COLUMNS, max_size=4).map(",".join) | st.just("time,cpu_percent,memory.usage_bytes")
TEXTS = st.builds(
    lambda head, lines, end: end.join([head, *lines]).encode("utf-8", "replace"),
    HEADS,
    GOOD_LINES | st.lists(LINES, max_size=6),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
TABLES_OF_TEXT = TEXTS | st.binary(max_size=100)


def assert_reported_or_refused(data: bytes, suffix: str) -> None:
    """Whatever *data* is, it is decided over, or a TraceError says where it is wrong."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / f"t{suffix}"
        path.write_bytes(data)
        try:
            trace = load(path)
        except TraceError as error:
            if str(path) not in error.where:
                raise
            return
        for config in CONFIGS:
            try:
                report = replay(trace, config)
            except TraceError:
                continue
            assert report.samples_count == len(trace)
            assert report.text()
            msgspec.json.encode(report)


@given(data=TRACES)
def test_any_trace_is_reported_or_refused(data: bytes) -> None:
    assert_reported_or_refused(data, ".trace")


@given(data=TABLES_OF_TEXT)
def test_any_table_of_text_is_reported_or_refused(data: bytes) -> None:
    assert_reported_or_refused(data, ".csv")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".trace", ".csv"])
def test_fuzz_trace_files(suffix: str) -> None:
    strategy = TRACES if suffix == ".trace" else TABLES_OF_TEXT
    print(run_for(SECONDS, strategy, lambda data: assert_reported_or_refused(data, suffix)), "files")
