"""The Snapshot that a reader hands out, from the bytes of a slot: nothing lost, nothing invented."""

from __future__ import annotations

import math
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm_monitor.schema import Level, Limit, Metric, Reason, Schema, Unknown, unknown
from shm_monitor.segment.flags import verdict_word
from shm_monitor.segment.view import Sample
from shm_monitor.snapshot.decoder import Decoder
from shm_monitor.snapshot.structs import Interface, Snapshot, encode_json, encode_msgpack
from tests.support.samples import GPU, MONO_NS, USUAL, WORKERS, sample_of, schema_of

NAN = math.nan
SCHEMA = schema_of(USUAL, WORKERS, GPU)


def decoded(decoder: Decoder, sample: Sample, **head: Any) -> Snapshot:
    """Return what *decoder* makes of *sample*, with a head that says nothing special."""
    usual: dict[str, Any] = {
        "name": "test",
        "now_ns": MONO_NS,
        "interval_ns": 10**9,
        "stale": False,
        "collectors": [0] * 6,
    }
    return decoder.snapshot(sample, **usual | head)


def snapshot_of(values: dict[str, float], schema: Schema = SCHEMA, **parts: Any) -> Snapshot:
    return decoded(Decoder(schema), sample_of(schema, values, **parts))


def flat(snapshot: Snapshot) -> dict[str, object]:
    """Return every reading of *snapshot* by the name of its metric."""
    found: dict[str, object] = dict(snapshot.other)

    def add(group: str, instance: str, row: msgspec.Struct) -> None:
        for field in row.__struct_fields__:
            found[Metric(group, field, "", "", "", instance).name] = getattr(row, field)

    for group in ("cpu", "memory", "stall", "network", "disk", "workers", "sampler"):
        add(group, "", getattr(snapshot, group))
    for group, rows in (
        ("memory", snapshot.memory.levels),
        ("network", snapshot.network.interfaces),
        ("disk", snapshot.disk.devices),
        ("mount", snapshot.disk.mounts),
    ):
        for instance, row in rows.items():
            add(group, instance, row)
    for gpu in snapshot.gpus:
        add("gpu", gpu.instance, gpu)
        for at, process in enumerate(gpu.processes):
            found[f"gpu:{gpu.instance}.process_{at}_pid"] = process.pid
            found[f"gpu:{gpu.instance}.process_{at}_memory_bytes"] = process.memory_bytes
    for at, worker in enumerate(snapshot.workers.processes):
        add("workers", str(at), worker)
    found |= {f"cpu:{core}.core_percent": value for core, value in snapshot.cpu.core_percent.items()}
    return found


TRANSLATED = {"memory.scope", "memory:host.scope", "gpu:0.throttle_reasons", "sampler:cpu.errors_count"}


def test_every_metric_arrives_in_its_own_field() -> None:
    values = {metric.name: float(at + 2) for at, metric in enumerate(SCHEMA.metrics)}
    found = flat(snapshot_of(values))

    for metric in SCHEMA.metrics:
        if metric.name not in TRANSLATED:
            assert found[metric.name] == values[metric.name], metric.name
            assert type(found[metric.name]) is (int if metric.integer else float), metric.name


@given(data=st.data())
def test_whatever_is_unknown_is_none_with_its_reason_and_the_rest_is_unharmed(data: st.DataObject) -> None:
    values = {metric.name: float(at + 2) for at, metric in enumerate(SCHEMA.metrics)}
    keep = {name for name in values if name.endswith("pid")}
    gone = data.draw(st.dictionaries(st.sampled_from(sorted(values.keys() - keep)), st.sampled_from(Unknown)))
    snapshot = snapshot_of(values | {name: unknown(why) for name, why in gone.items()})

    found = flat(snapshot)
    assert {name: snapshot.unavailable[name] for name in gone} == {name: why.text for name, why in gone.items()}
    for metric in SCHEMA.metrics:
        if metric.name not in TRANSLATED:
            assert found[metric.name] == (None if metric.name in gone else values[metric.name])
    assert snapshot.unavailable.keys() - gone.keys() == set()


@given(
    rows=st.lists(
        st.lists(st.floats() | st.sampled_from([unknown(why) for why in Unknown]), min_size=8, max_size=8),
        min_size=1,
        max_size=6,
    )
)
def test_a_decoder_that_has_seen_other_samples_answers_like_a_fresh_one(rows: list[list[float]]) -> None:
    """Nothing of an earlier sample may show."""
    schema = schema_of({"cpu": "cpu_percent* count#", "memory": "usage_bytes*# capacity_bytes# scope#", "x": "a b# c"})
    decoder = Decoder(schema)
    for number, row in enumerate(rows):
        values = dict(zip([metric.name for metric in schema.metrics], row, strict=True))
        sample = sample_of(schema, values, number=number)

        assert decoded(decoder, sample) == decoded(Decoder(schema), sample)


@given(row=st.lists(st.floats(), min_size=len(SCHEMA.metrics), max_size=len(SCHEMA.metrics)))
def test_any_floats_make_a_snapshot_that_both_formats_write_alike(row: list[float]) -> None:
    """Infinite or beyond 64 bits: no sampler publishes it, and a reader survives it."""
    snapshot = snapshot_of(dict(zip([metric.name for metric in SCHEMA.metrics], row, strict=True)))

    assert msgspec.json.decode(encode_json(snapshot), type=Snapshot) == snapshot
    assert msgspec.msgpack.decode(encode_msgpack(snapshot), type=Snapshot) == snapshot
    assert msgspec.json.decode(encode_json(snapshot)) == msgspec.msgpack.decode(encode_msgpack(snapshot))


def test_a_nan_never_leaves_a_snapshot() -> None:
    """msgspec writes NaN as null in JSON and as NaN in MessagePack: both must say null."""
    snapshot = snapshot_of({}, default=NAN, statistics={"memory.usage_bytes": (NAN, NAN, NAN)})

    assert b"\xcb\x7f\xf8" not in encode_msgpack(snapshot)
    assert snapshot.memory.usage_bytes is None
    assert snapshot.rolled["memory.usage_bytes"].mean is None
    assert snapshot.unavailable["memory.usage_bytes"] == "error"


def test_the_head_says_whose_when_and_how_old() -> None:
    sample = sample_of(SCHEMA, {}, number=41, verdict=verdict_word(Level.PRUNE, Reason.LEVEL))
    snapshot = decoded(Decoder(SCHEMA), sample, now_ns=MONO_NS + 25 * 10**7, stale=True, injected=("memory.x",))

    assert (snapshot.name, snapshot.sequence, snapshot.epoch, snapshot.interval_seconds) == ("test", 41, 9, 1.0)
    assert (snapshot.sampled_at, snapshot.age_seconds) == (1_800_000_000.0, 0.25)
    assert (snapshot.stale, snapshot.degraded, snapshot.injected) == (True, False, ("memory.x",))
    assert (snapshot.level, snapshot.should_prune) == ("prune", True)


@pytest.mark.parametrize(("level", "prunes"), [(Level.OK, False), (Level.WARN, False), (Level.CRITICAL, True)])
def test_the_level_is_that_of_the_sample(level: Level, prunes: bool) -> None:
    snapshot = snapshot_of({}, verdict=verdict_word(level, 0))

    assert (snapshot.level, snapshot.should_prune) == (level.name.lower(), prunes)


def test_the_same_sample_read_again_is_older_and_equal_otherwise() -> None:
    decoder, sample = Decoder(SCHEMA), sample_of(SCHEMA, {})
    first = decoded(decoder, sample, collectors=[MONO_NS, 0] * 3)
    again = decoded(decoder, sample._replace(degraded=True), now_ns=MONO_NS + 10**9, collectors=[MONO_NS, 2] * 3)

    assert (first.age_seconds, again.age_seconds, again.degraded) == (0.0, 1.0, True)
    assert again.sampler.collectors["cpu"].last_ok_age_seconds == 1.0
    assert again.sampler.collectors["cpu"].errors_count == 2
    assert (again.cpu, again.rolled, again.limits) == (first.cpu, first.rolled, first.limits)


def test_a_sample_from_the_future_is_not_younger_than_now() -> None:
    """The sampler may publish between the reader's clock and its copy of the slot."""
    snapshot = decoded(Decoder(SCHEMA), sample_of(SCHEMA, {}), now_ns=MONO_NS - 5, collectors=[MONO_NS, 0] * 3)

    assert (snapshot.age_seconds, snapshot.sampler.collectors["cpu"].last_ok_age_seconds) == (0.0, 0.0)


def test_a_collector_that_never_succeeded_has_no_age() -> None:
    words = [MONO_NS - 5 * 10**8, 1, 0, 3, MONO_NS - 10**9, 0]
    collectors = decoded(Decoder(SCHEMA), sample_of(SCHEMA, {}), collectors=words).sampler.collectors

    assert [state.last_ok_age_seconds for state in collectors.values()] == [0.5, None, 1.0]
    assert [state.errors_count for state in collectors.values()] == [1, 3, 0]
    assert list(collectors) == ["cpu", "memory", "network"]


@pytest.mark.parametrize(("index", "name"), [(0.0, "host"), (1.0, "/job"), (2.0, None), (-1.0, None), (NAN, None)])
def test_the_memory_scope_is_named(index: float, name: str | None) -> None:
    assert snapshot_of({"memory.scope": index}).memory.scope == name


def test_statistics_are_by_metric_name() -> None:
    rolled = snapshot_of({}, statistics={"memory.usage_bytes": (1.5, 2.0, -0.25)}).rolled

    assert list(rolled) == [metric.name for metric in SCHEMA.metrics[: SCHEMA.rolled_count]]
    row = rolled["memory.usage_bytes"]
    assert (row.mean, row.maximum, row.slope) == (1.5, 2.0, -0.25)


def test_a_gpu_is_told_by_what_does_not_change_and_its_throttle_reasons_by_name() -> None:
    gpu = snapshot_of({"gpu:0.throttle_reasons": 0x44}).gpus[0]

    assert (gpu.instance, gpu.index, gpu.uuid, gpu.name, gpu.memory_kind) == ("0", 0, "GPU-6f2c", "H200", "dedicated")
    assert gpu.throttle_reasons == ("sw_power_cap", "hw_thermal_slowdown")
    assert snapshot_of({"gpu:0.throttle_reasons": 0.0}).gpus[0].throttle_reasons == ()
    assert snapshot_of({"gpu:0.throttle_reasons": NAN}).gpus[0].throttle_reasons is None


def test_empty_rows_of_process_tables_are_neither_shown_nor_unknown() -> None:
    gone = unknown(Unknown.DISABLED)
    gaps = dict.fromkeys(("gpu:0.process_1_pid", "gpu:0.process_1_memory_bytes", "workers:1.pid"), gone)
    snapshot = snapshot_of({"gpu:0.process_0_pid": 123, "workers:0.pid": 456, **gaps})

    assert [process.pid for process in snapshot.gpus[0].processes] == [123]
    assert [worker.pid for worker in snapshot.workers.processes] == [456]
    assert not any("process_1" in name or name.startswith("workers:1") for name in snapshot.unavailable)


def test_a_process_whose_memory_the_driver_does_not_tell_is_shown_without_it() -> None:
    snapshot = snapshot_of({"gpu:0.process_0_memory_bytes": unknown(Unknown.NO_PERMISSION)})

    assert snapshot.gpus[0].processes[0].memory_bytes is None
    assert snapshot.unavailable["gpu:0.process_0_memory_bytes"] == "no_permission"


def test_a_field_that_the_sampler_does_not_have_is_not_supported() -> None:
    """An older sampler, or another operating system: the Struct has the field, the schema has no metric for it."""
    snapshot = snapshot_of({}, schema_of({"cpu": "cpu_percent*", "network": "eth0/drops_count#"}, limits=()))

    assert snapshot.cpu.load_1 is None
    assert snapshot.unavailable["cpu.load_1"] == "not_supported"
    assert snapshot.network.interfaces["eth0"] == Interface(drops_count=1)
    assert snapshot.unavailable["network:eth0.errors_count"] == "not_supported"
    assert "cpu.cpu_percent" not in snapshot.unavailable
    assert snapshot.gpus == []


def test_without_a_gpu_the_reason_is_told() -> None:
    schema = schema_of(USUAL, facts={"gpu": {"devices": [], "unavailable": "no driver"}})

    assert snapshot_of({}, schema).unavailable["gpu"] == "no driver"


def test_metrics_of_a_newer_sampler_are_kept() -> None:
    schema = schema_of(USUAL, {"npu": "3/tops_per_second joules_count# wear_percent", "cpu": "ipc"})
    snapshot = snapshot_of({"npu:3.tops_per_second": 2.5, "npu.joules_count": 4.0, "npu.wear_percent": NAN}, schema)

    assert snapshot.other == {
        "npu:3.tops_per_second": 2.5,
        "npu.joules_count": 4,
        "npu.wear_percent": None,
        "cpu.ipc": 1.0,
    }
    assert snapshot.unavailable["npu.wear_percent"] == "error"


PRESSED = {
    "level": 3.0,
    "reasons": float(Reason.LEVEL | Reason.CAPACITY),
    "limit": 90.0,
    "target": 81.0,
    "capacity": 100.0,
    "seconds_to_limit": 2.5,
    "mean": 95.0,
    "maximum": 98.0,
    "pressed_since_seconds": MONO_NS / 1e9 - 30,
    "level_episodes_count": 2.0,
    "capacity_episodes_count": 1.0,
}


def test_a_limit_says_what_the_policy_remembers() -> None:
    state = snapshot_of({"memory.usage_bytes": 97.0}, tracks={"memory": PRESSED}).limits[0]

    assert (state.limit, state.metric, state.level) == ("memory", "memory.usage_bytes", "critical")
    assert state.reasons == ("level", "capacity")
    assert (state.value, state.mean, state.maximum) == (97, 95.0, 98.0)
    assert (state.limit_value, state.target, state.capacity, state.seconds_to_limit) == (90.0, 81.0, 100.0, 2.5)
    assert state.since == pytest.approx(1_800_000_000 - 30)
    assert state.episodes == {"level": 2, "forecast": 0, "capacity": 1, "event": 0}


def test_a_limit_that_is_not_pressed_has_no_since() -> None:
    """The policy keeps when it last was; a snapshot tells what is."""
    assert snapshot_of({}, tracks={"memory": PRESSED | {"level": 1.0}}).limits[0].since is None


def test_what_a_limit_does_not_know_is_none() -> None:
    gone = dict.fromkeys(SCHEMA.track_fields, NAN) | {"reasons": float(Reason.UNKNOWN)}
    state = snapshot_of({"memory.usage_bytes": NAN}, tracks={"memory": gone}).limits[0]

    assert (state.level, state.reasons, state.since, state.capacity) == ("ok", ("unknown",), None, None)
    assert (state.value, state.limit_value, state.seconds_to_limit) == (None, None, None)
    assert set(state.episodes.values()) == {0}


def test_a_limit_that_is_not_set_is_not_listed() -> None:
    """It would read as "ok", of which nobody knows."""
    assert snapshot_of({}, tracks={"memory": {"limit": NAN, "level": 0.0}}).limits == []


@pytest.mark.parametrize(("index", "name"), [(0.0, "host"), (1.0, "/job"), (NAN, None)])
def test_each_level_of_memory_is_told_with_the_swap_that_is_left_to_it(index: float, name: str | None) -> None:
    level = snapshot_of({"memory:host.scope": index, "memory:host.swap_available_bytes": 7.0}).memory.levels["host"]

    assert (level.scope, level.usage_bytes, level.capacity_bytes, level.swap_available_bytes) == (name, 1, 1, 7)


def test_limits_are_read_each_from_its_own_columns() -> None:
    limits = [Limit("cpu", "cpu.cpu_percent", "percent"), Limit("gone", "no.such_metric", "percent")]
    schema = schema_of(USUAL, limits=limits)
    snapshot = snapshot_of({}, schema, tracks={"cpu": {"limit": 70.0}, "gone": {"limit": 80.0, "reasons": 64.0}})

    assert [state.limit_value for state in snapshot.limits] == [70.0, 80.0]
    assert (snapshot.limits[0].value, snapshot.limits[1].value) == (1.0, None)
    assert snapshot.limits[1].reasons == ("bit_6",)


def test_a_limit_of_a_sampler_that_keeps_fewer_columns_is_read_too() -> None:
    schema = schema_of(USUAL, track_fields=("reasons", "limit"))
    state = snapshot_of({}, schema, tracks={"memory": {"limit": 5.0, "reasons": 8.0}}).limits[0]

    assert (state.limit_value, state.reasons, state.target, state.level) == (5.0, ("event",), None, "ok")


@pytest.mark.parametrize("facts", [{}, {"memory": None, "gpu": []}, {"memory": {"scopes": 3}, "gpu": {"devices": [1]}}])
def test_facts_of_another_shape_cost_their_meaning_alone(facts: dict[str, object]) -> None:
    snapshot = snapshot_of({}, schema_of(USUAL, GPU, facts=facts))

    assert (snapshot.memory.scope, snapshot.memory.usage_bytes) == (None, 1)
    assert (snapshot.gpus[0].instance, snapshot.gpus[0].uuid, snapshot.gpus[0].utilization_percent) == ("0", "", 1.0)


def test_a_schema_without_metrics_makes_an_empty_snapshot() -> None:
    snapshot = snapshot_of({}, Schema((), (), ("cpu", "memory", "network"), {}))

    assert (snapshot.cpu.cpu_percent, snapshot.rolled, snapshot.other) == (None, {}, {})


def test_threads_that_share_a_decoder_get_their_own_samples() -> None:
    decoder = Decoder(SCHEMA)
    samples = [
        sample_of(SCHEMA, {"cpu.load_1": float(at), "cpu.steal_percent": NAN if at % 2 else 1.0}, number=at)
        for at in range(40)
    ]

    def read(at: int) -> bool:
        snapshot = decoded(decoder, samples[at])
        return (snapshot.sequence, snapshot.cpu.load_1, snapshot.cpu.steal_percent is None) == (at, at, bool(at % 2))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, [at % 40 for at in range(4000)]))


def test_the_json_of_a_snapshot_is_nested_by_group() -> None:
    tree = msgspec.json.decode(encode_json(snapshot_of({"memory.usage_bytes": 512.0})))

    assert tree["memory"]["usage_bytes"] == 512
    assert tree["network"]["interfaces"]["eth0"]["drops_count"] == 1
    assert tree["disk"]["mounts"]["/data"]["total_bytes"] == 1
    assert {"sequence", "sampled_at", "age_seconds", "interval_seconds", "stale", "epoch"} <= tree.keys()


def test_the_numbers_of_a_slot_are_where_the_layout_says() -> None:
    """The tests above write slots by hand; this one holds them against layout.py."""
    from shm_monitor.segment.layout import SlotLayout

    sample = sample_of(SCHEMA, {SCHEMA.metrics[0].name: 4.25}, statistics={SCHEMA.metrics[0].name: (1.5, 2.5, 3.5)})
    slot = SlotLayout.of(SCHEMA)
    places = (slot.values, slot.means, slot.maxima, slot.slopes)

    assert [struct.unpack_from("<d", sample.data, place)[0] for place in places] == [4.25, 1.5, 2.5, 3.5]
    assert len(sample.data) == slot.stride
