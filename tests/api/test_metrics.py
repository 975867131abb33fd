"""The Prometheus text: it parses, it obeys the naming rules, and it never invents."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import msgspec
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

import shm_monitor as sm
from shm_monitor.snapshot.decoder import Decoder
from shm_monitor_api.exposition import exposition, families
from shm_monitor_api.readings import Reading
from tests.support.api_server import Asked, MortalSampler, asked
from tests.support.samples import GPU, MEMORY, MONO_NS, USUAL, sample_of, schema_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

BASE_UNITS = ("_ratio", "_bytes", "_seconds", "_celsius", "_watts")
WITHOUT_UNIT = ("_live", "_active", "_level", "_success", "_info", "_episodes", "_errors")
OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}
TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
NAN = float("nan")


@pytest.fixture
def sampler(name: str) -> Iterator[MortalSampler]:
    made = MortalSampler(name, gpus=1)
    made.feed(50.0)
    yield made
    made.die()


@pytest.fixture
def ask(sampler: MortalSampler, name: str) -> Asked:
    return asked(name)


def snapshot_of(values: Mapping[str, float], *, default: float = 1.0, stale: bool = False) -> sm.Snapshot:
    """Return a snapshot of the usual metrics and one GPU."""
    schema = schema_of(USUAL, GPU, limits=[MEMORY])
    return Decoder(schema).snapshot(
        sample_of(schema, values, default=default),
        name="metrics",
        now_ns=MONO_NS + 10**9,
        interval_ns=10**9,
        stale=stale,
        collectors=[MONO_NS, 0] * 3,
    )


def by_name(snapshot: sm.Snapshot) -> dict[str, Metric]:
    """Return the families of *snapshot* by name, without our prefix."""
    return {family.name.removeprefix("shm_monitor_"): family for family in families(snapshot)}


def value_of(snapshot: sm.Snapshot, name: str, **labels: str) -> float:
    """Return one series."""
    rows = [row for row in by_name(snapshot)[name].samples if labels.items() <= row.labels.items()]
    assert len(rows) == 1
    return float(rows[0].value)


def test_the_text_parses_and_says_the_same_in_both_formats(ask: Asked) -> None:
    text, openmetrics = ask("/metrics"), ask("/metrics", headers=OPENMETRICS)

    assert text.headers["content-type"].startswith("text/plain; version=")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert text.headers["cache-control"] == "no-store"
    named = {row.name for family in text_families(text.text) for row in family.samples}
    others: Iterable[Metric] = openmetrics_families(openmetrics.text)  # type: ignore[no-untyped-call]
    assert named == {row.name for family in others for row in family.samples}


def test_every_series_has_help_and_type_and_one_prefix(ask: Asked) -> None:
    lines = ask("/metrics").text.splitlines()
    series = {re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")}

    for name in series:
        assert name.startswith("shm_monitor_")
        assert any(line.startswith(f"# HELP {name} ") and len(line) > len(f"# HELP {name} ") + 8 for line in lines)
        assert any(re.fullmatch(rf"# TYPE {name} (counter|gauge)", line) for line in lines)


def test_names_follow_the_rules_of_prometheus() -> None:
    """Base units, plural and last; ``_total`` for counters and for nothing else; labels in snake case."""
    for family in families(snapshot_of({"gpu:0.throttle_reasons": 4.0})):
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        assert family.name.endswith(BASE_UNITS + WITHOUT_UNIT)
        assert not re.search(r"percent|_mb|milli|kilo|mega", family.name)
        for row in family.samples:
            assert row.name.endswith("_total") is (family.type == "counter")
            assert all(re.fullmatch(r"[a-z_]+", label) for label in row.labels)
            assert "pid" not in row.labels


def test_all_names_that_were_promised_are_there() -> None:
    found = {row.name for family in families(snapshot_of({"gpu:0.throttle_reasons": 4.0})) for row in family.samples}
    promised = """
        cpu_utilization_ratio memory_usage_bytes memory_capacity_bytes pressure_waiting_seconds_total
        pressure_stalled_seconds_total disk_read_bytes_total disk_written_bytes_total network_receive_bytes_total
        network_transmit_bytes_total gpu_utilization_ratio gpu_memory_used_bytes gpu_memory_total_bytes
        gpu_temperature_celsius gpu_power_watts gpu_throttle_active gpu_info limit_level prune_active
        prune_episodes_total sample_timestamp_seconds sample_duration_seconds collector_success
        sampler_cpu_seconds_total sampler_resident_bytes
    """

    assert {f"shm_monitor_{name}" for name in promised.split()} <= found


def test_percent_becomes_a_ratio_and_bytes_stay() -> None:
    snapshot = snapshot_of(
        {"cpu.cpu_percent": 25.0, "memory.usage_bytes": 4096.0, "memory.scope": 1.0, "gpu:0.utilization_percent": 50.0}
    )

    assert value_of(snapshot, "cpu_utilization_ratio") == 0.25
    assert value_of(snapshot, "memory_usage_bytes", scope="/job") == 4096
    assert value_of(snapshot, "gpu_utilization_ratio", gpu="0", uuid="GPU-6f2c") == 0.5
    assert value_of(snapshot, "pressure_waiting_seconds", resource="io") == 1
    assert value_of(snapshot, "network_receive_bytes", device="eth0") == 1
    assert value_of(snapshot, "gpu_throttle_active", reason="gpu_idle") == 1


def test_the_host_stands_beside_a_scope_of_our_own() -> None:
    values = {"memory.host_total_bytes": 100.0, "memory.host_available_bytes": 30.0}
    in_job, on_host = snapshot_of({**values, "memory.scope": 1.0}), snapshot_of({**values, "memory.scope": 0.0})

    assert value_of(in_job, "memory_usage_bytes", scope="host") == 70
    assert value_of(in_job, "memory_capacity_bytes", scope="host") == 100
    assert [row.labels["scope"] for row in by_name(on_host)["memory_usage_bytes"].samples] == ["host"]


def test_nothing_is_emitted_for_what_is_unknown() -> None:
    """Neither a zero nor a NaN, nor the head of a family without a series."""
    snapshot = snapshot_of({}, default=NAN)
    body, _ = exposition(Reading(snapshot), "")
    text = body.decode()
    found = by_name(snapshot)

    assert "NaN" not in text
    assert not {"cpu_utilization_ratio", "memory_usage_bytes", "gpu_power_watts", "disk_read_bytes"} & set(found)
    assert all(family.samples for family in found.values())
    assert "cpu_utilization_ratio" not in text


def test_no_series_outlives_its_device(ask: Asked, sampler: MortalSampler) -> None:
    assert 'gpu="0"' in ask("/metrics").text
    sampler.readings["gpu:0.utilization_percent"] = math.nan
    sampler.feed(50.0)

    assert "shm_monitor_gpu_utilization_ratio" not in ask("/metrics").text


def test_the_numbers_of_a_dead_sampler_are_not_served_as_new(ask: Asked, sampler: MortalSampler) -> None:
    sampler.die()
    rows = {row.name: row.value for family in text_families(ask("/metrics").text) for row in family.samples}

    assert set(rows) == {"shm_monitor_sampler_live", "shm_monitor_sample_timestamp_seconds"}
    assert rows["shm_monitor_sampler_live"] == 0


def test_the_verdict_is_there(ask: Asked, sampler: MortalSampler) -> None:
    sampler.feed(98.0)
    rows = {
        (row.name.removeprefix("shm_monitor_"), row.labels.get("limit"), row.labels.get("reason")): row.value
        for family in text_families(ask("/metrics").text)
        for row in family.samples
    }

    assert rows["prune_active", None, None] == 1
    assert rows["limit_level", "memory", None] == 3
    assert rows["prune_episodes_total", "memory", "capacity"] == 1


def test_a_collector_fails_when_it_is_late_and_its_readings_are_missing() -> None:
    calm = snapshot_of({})
    state = {**calm.sampler.collectors, "cpu": type(calm.sampler.collectors["cpu"])(60.0, 3)}

    def with_state(why: str) -> sm.Snapshot:
        sampler = msgspec.structs.replace(calm.sampler, collectors=state)
        return msgspec.structs.replace(calm, sampler=sampler, unavailable={"cpu.cpu_percent": why})

    assert value_of(calm, "collector_success", collector="cpu") == 1
    assert value_of(with_state("error"), "collector_success", collector="cpu") == 0
    assert value_of(with_state("not_supported"), "collector_success", collector="cpu") == 1  # a slower cadence
    assert value_of(with_state("error"), "collector_success", collector="memory") == 1
    assert value_of(with_state("error"), "collector_errors", collector="cpu") == 3


def test_labels_with_quotes_are_escaped() -> None:
    snapshot = snapshot_of({"memory.scope": 0.0})
    odd = 'a"b\\c\nd'
    snapshot = msgspec.structs.replace(snapshot, memory=msgspec.structs.replace(snapshot.memory, scope=odd))
    text = exposition(Reading(snapshot), "")[0].decode()
    found = {row.labels["scope"] for f in text_families(text) for row in f.samples if "scope" in row.labels}

    assert odd in found


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("application/openmetrics-text;version=foo", OPENMETRICS_TYPE),
        (
            "application/openmetrics-text;version=1.0.0\u00e9",
            OPENMETRICS_TYPE,
        ),
        ("application/openmetrics-text;version=", OPENMETRICS_TYPE),
        ("text/plain;version=foo", TEXT_TYPE),
        ("text/plain;version=1.0.0;escaping=allow-utf-8", TEXT_TYPE),
        ("application/openmetrics-text;q=nan, text/plain", TEXT_TYPE),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            OPENMETRICS_TYPE,
        ),
        ("text/html", TEXT_TYPE),
    ],
)
def test_the_format_is_one_of_ours_whatever_version_is_asked_for(ask: Asked, accept: str, media: str) -> None:
    """A version was spelled back as the client spelled it, and one that is no number was a 500."""
    response = ask("/metrics", headers={"accept": accept.encode("latin-1")})

    assert (response.status_code, response.headers["content-type"]) == (200, media)
