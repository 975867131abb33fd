"""The table of `shm-monitor snapshot`: everything in it, aligned, in units that can be read."""

from __future__ import annotations

import msgspec
import pytest

from shm_monitor.schema import Unknown, unknown
from shm_monitor.snapshot.decoder import Decoder
from shm_monitor.snapshot.structs import CollectorState, Cpu, LimitState, Sampler, Snapshot
from shm_monitor.snapshot.table import render_table
from shm_monitor.units import human
from tests.support.samples import GPU, MONO_NS, USUAL, WORKERS, sample_of, schema_of

EMPTY = Snapshot("job", 7, 9, 1_800_000_000.0, 0.25, 1.0, stale=False, degraded=False, level="ok", should_prune=False)


def full_table(values: dict[str, float]) -> str:
    """Return the table of a sample with every group."""
    schema = schema_of(USUAL, WORKERS, GPU, {"npu": "tops_count#"})
    sample = sample_of(schema, values)
    snapshot = Decoder(schema).snapshot(
        sample, name="job", now_ns=MONO_NS, interval_ns=10**9, stale=False, collectors=[MONO_NS, 0] * 3
    )
    return render_table(snapshot)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("usage_bytes", None, "-"),
        ("usage_bytes", 0, "0 B"),
        ("usage_bytes", 1023, "1023 B"),
        ("usage_bytes", 1024, "1.0 KB"),
        ("usage_bytes", 3 * 2**30, "3.0 GB"),
        ("usage_bytes", 5 * 2**50, "5120.0 TB"),
        ("read_bytes_per_second", 1536.0, "1.5 KB/s"),
        ("receive_bytes_count", 2048, "2.0 KB"),
        ("cpu_percent", 12.34, "12.3 %"),
        ("oom_events_count", 12345, "12,345"),
        ("effective_count", 0.5, "0.5"),
        ("sample_duration_seconds", 0.0005, "0.50 ms"),
        ("cpu_seconds", 1234.56, "20 min 35 s"),
        ("temperature_celsius", 64.6, "65 °C"),
        ("power_watts", 651.2, "651 W"),
        ("sm_clock_mhz", 1980.0, "1980 MHz"),
        ("load_1", 0.5, "0.50"),
        ("count", 16, "16"),
        ("scope", "/job", "/job"),
    ],
)
def test_a_reading_is_shown_in_the_unit_that_ends_its_name(field: str, value: float | str | None, text: str) -> None:
    assert human(field, value) == text


def test_everything_that_is_measured_is_in_the_table() -> None:
    table = full_table({"memory.usage_bytes": 3.0 * 2**30, "gpu:0.throttle_reasons": 4.0, "workers:1.pid": 4711.0})

    heads = [line.split()[0] for line in table.splitlines() if line and not line.startswith(" ")]
    assert heads == ["job:", "CPU", "MEMORY", "STALL", "NETWORK", "DISK", "GPU", "WORKERS", "SAMPLER", "OTHER"]
    for text in (
        "usage 3.0 GB",
        "scope /job",
        "eth0",
        "vda",
        "/data",
        "H200",
        "sw_power_cap",
        "4711",
        "core 1",
        "npu.",
    ):
        assert text in table


def test_no_line_ends_in_spaces_and_none_is_wide() -> None:
    for line in full_table({}).splitlines():
        assert line == line.rstrip()
        assert len(line) <= 160


def test_columns_are_aligned() -> None:
    table = full_table({})
    head = next(line for line in table.splitlines() if "interface" in line)
    row = next(line for line in table.splitlines() if line.startswith("  eth0"))

    assert len(head) == len(row)


def test_what_is_unknown_is_a_dash_and_its_reason_stands_at_the_end() -> None:
    table = full_table({"cpu.steal_percent": unknown(Unknown.NOT_SUPPORTED), "cpu.load_1": unknown(Unknown.TIMEOUT)})

    assert "steal -" in table
    end = table.split("UNKNOWN\n")[1]
    assert "timeout: cpu.load_1" in end
    assert "not_supported: cpu.steal_percent" in end


def test_why_there_is_no_gpu_is_told_in_words() -> None:
    snapshot = msgspec.structs.replace(EMPTY, unavailable={"gpu": "no driver here"})

    assert render_table(snapshot).endswith("UNKNOWN\n  gpu: no driver here")


def test_a_group_of_which_nothing_is_known_is_left_out() -> None:
    table = render_table(EMPTY)

    assert "STALL" not in table
    assert table.startswith("job: ok, sample 7 of ")
    assert "UNKNOWN" not in table


def test_a_snapshot_that_is_not_what_it_seems_says_so_first() -> None:
    sampler = Sampler(cpu_percent=0.1, collectors={"cpu": CollectorState(None, 3)})
    snapshot = Snapshot(
        "job", 7, 9, 0.0, 2.0, 1.0, stale=True, degraded=True, level="prune", should_prune=True,
        injected=("memory.usage_percent",), sampler=sampler,
    )  # fmt: skip
    lines = render_table(snapshot).splitlines()

    assert lines[1].startswith("STALE")
    assert lines[2].startswith("DEGRADED")
    assert lines[3] == "INJECTED: memory.usage_percent"


def test_a_pressed_limit_says_since_when_and_why() -> None:
    limit = LimitState(
        "memory", "memory.usage_bytes", "prune", ("level", "forecast"), value=95 * 2**20, limit_value=90.0 * 2**20,
        seconds_to_limit=2.5, since=EMPTY.sampled_at - 30,
    )  # fmt: skip
    snapshot = Snapshot(
        "job", 7, 9, EMPTY.sampled_at, 0.0, 1.0, stale=False, degraded=False, level="prune", should_prune=True,
        cpu=Cpu(cpu_percent=1.0), limits=[limit],
    )  # fmt: skip
    row = next(line for line in render_table(snapshot).splitlines() if line.startswith("  memory"))

    assert row.split("  ")[1:3] == ["memory", "prune"]
    for text in ("95.0 MB", "90.0 MB", "2.5 s", "30.0 s", "level, forecast"):
        assert text in row
