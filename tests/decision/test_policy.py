"""The decision: what sets each reason, what clears it, and what a restart keeps."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
import pytest

from shm_monitor.decision.decider import fresh_published, resumed_published
from shm_monitor.decision.rules import MEBIBYTE, rules
from shm_monitor.kernels import decide as step
from shm_monitor.schema import TRACK_FIELDS, TRACK_HELP, Level, Reason, Unknown, unknown
from tests.support.engine import MEMORY, Engine, Settings, metric

GPUS = [
    metric("gpu", field, instance=instance, rolled=True)
    for instance in ("0", "1")
    for field in ("utilization_percent", "memory_percent")
]
EVERYTHING = [
    MEMORY[0],
    metric("cpu", "cpu_percent", rolled=True),
    metric("network", "usage_bytes_per_second", rolled=True),
    *GPUS,
    *MEMORY[1:],
    metric("cpu", "core_percent", instance="0"),
    metric("network", "usage_bytes_per_second", instance="eth0"),
]
EVENTS = ("memory.reclaim_events_count", "memory.oom_events_count")


def test_each_column_of_a_track_is_explained() -> None:
    assert all(TRACK_HELP.values())


def test_memory_alone_has_a_limit_by_default() -> None:
    """All others have their place, so that a limit that is configured later moves no flag, and press nothing."""
    found = rules(Settings(max_memory_usage_mb=None), EVERYTHING)

    assert found[0].limit.name == "memory"
    assert math.isnan(found[0].ceiling)
    assert EVERYTHING[found[0].capacity].name == "memory.capacity_bytes"
    assert not math.isnan(found[0].target)
    assert len(found) == 7
    assert all(math.isnan(rule.target) for rule in found[1:])


def test_every_configured_limit_exists_in_the_order_of_the_flags() -> None:
    settings = Settings(
        max_memory_usage_mb=10.0,
        max_cpu_usage_percent=70.0,
        max_gpu_usage_percent=80.0,
        max_gpu_memory_percent=90.0,
        max_network_usage_bytes_per_second=1e6,
    )

    found = rules(settings, EVERYTHING, devices={"0": "GPU-a", "1": "GPU-b"})

    names = ["memory", "cpu", "network", "gpu:0", "gpu:1", "gpu-memory:0", "gpu-memory:1"]
    assert [rule.limit.name for rule in found] == names
    assert [rule.limit.device for rule in found] == ["", "", "", "GPU-a", "GPU-b", "GPU-a", "GPU-b"]
    assert [rule.ceiling for rule in found] == [10 * MEBIBYTE, 70, 1e6, 80, 80, 90, 90]
    assert [rule.limit.metric for rule in found] == [EVERYTHING[rule.value].name for rule in found]


def test_what_is_not_measured_has_no_limit() -> None:
    found = rules(Settings(max_gpu_usage_percent=80.0), [metric("cpu", "cpu_percent", rolled=True)])

    assert [rule.limit.name for rule in found] == ["cpu"]
    assert math.isnan(found[0].target)


def test_a_monitor_that_is_switched_off_has_limits_that_press_nothing() -> None:
    engine = Engine(Settings(enabled=False)).feed([99.0] * 30)

    assert set(engine.levels) == {Level.OK}
    assert engine.reasons[-1] == Reason(0)


def test_a_limit_that_is_not_configured_has_no_numbers() -> None:
    engine = Engine(metrics=[metric("gpu", "memory_percent", instance="0", rolled=True)])
    engine.feed([99.0] * 30, "gpu:0.memory_percent")

    assert set(engine.verdicts) == {0}
    assert math.isnan(engine.track("limit"))
    assert math.isnan(engine.track("target"))


def test_no_limit_at_all_decides_nothing() -> None:
    engine = Engine(metrics=[metric("cpu", "cpu_percent", rolled=True)]).feed([99.0] * 5, "cpu.cpu_percent")

    assert set(engine.verdicts) == {0}


def test_nothing_but_capacity_fires_until_half_a_period_is_observed() -> None:
    engine = Engine().feed([95.0] * 10)

    assert engine.transitions == [5.0]
    assert Engine().feed([98.0]).levels == [Level.CRITICAL]


def test_a_utilization_has_no_capacity_and_is_never_critical() -> None:
    metrics = [metric("cpu", "cpu_percent", rolled=True)]
    engine = Engine(Settings(max_cpu_usage_percent=70.0), metrics).feed([100.0] * 30, "cpu.cpu_percent")

    assert max(engine.levels) == Level.PRUNE
    assert engine.reasons[-1] == Reason.LEVEL


@pytest.mark.parametrize(("field", "key"), [("cpu_percent", "cpu"), ("usage_bytes_per_second", "network")])
def test_what_slows_down_rather_than_runs_out_has_no_end_to_tell_of(field: str, key: str) -> None:
    settings = Settings(max_cpu_usage_percent=70.0, max_network_usage_bytes_per_second=70.0)
    engine = Engine(settings, [metric(key, field, rolled=True)])

    engine.feed([30.0] * 20 + list(np.arange(31.0, 71.0)) + [90.0] * 20, f"{key}.{field}")

    assert {bit for reasons in engine.reasons for bit in reasons} == {Reason.LEVEL}
    assert all(np.isnan(track[0, step.SECONDS]) for track in engine.tracks)


def test_the_numbers_of_a_reason_stay_as_they_were_when_it_was_set() -> None:
    engine = Engine().feed([60.0] * 30).feed([65.0, 70.0, 75.0, 80.0, 85.0, 90.0])
    assert engine.reasons[-1] == Reason.FORECAST

    engine.feed([60.0] * 5)

    assert engine.track("forecast_value") == 90 * MEBIBYTE
    assert engine.track("forecast_limit") == 92 * MEBIBYTE
    assert engine.track("forecast_capacity") == 100 * MEBIBYTE
    assert engine.track("forecast_seconds_to_limit") == pytest.approx(2.0)
    assert engine.track("forecast_mean") == pytest.approx(np.mean([60.0] * 5 + [65, 70, 75, 80, 85, 90]) * MEBIBYTE)
    assert engine.track("forecast_since_seconds") == pytest.approx(engine.now_ns * 1e-9 - 5)
    assert engine.track("forecast_episodes_count") == engine.track("episodes_count") == 1


def test_each_reason_latches_by_itself() -> None:
    engine = Engine().feed([60.0] * 30).feed([94.0] * 20).feed([98.0]).feed([94.0] * 12)

    assert engine.reasons[49] == Reason.LEVEL
    assert engine.reasons[50] == Reason.LEVEL | Reason.CAPACITY
    assert engine.reasons[60] == Reason.LEVEL | Reason.CAPACITY
    assert engine.reasons[61] == Reason.LEVEL
    assert engine.levels[61] == Level.PRUNE
    assert engine.track("capacity_episodes_count") == 1


STALL = "stall.memory_some_percent"


def with_event(name: str, percent: float, *, stalled_percent: float = math.nan) -> Engine:
    """Return an engine at *percent* for 60 s whose counter *name* rises once, at second 30."""
    engine = Engine(metrics=[*MEMORY, metric("stall", "memory_some_percent")])
    engine.set(STALL, stalled_percent)
    for event in EVENTS:
        engine.set(event, 7.0)
    engine.feed([percent] * 30)
    engine.set(name, 8.0)
    return engine.feed([percent] * 30)


def test_a_reclaim_event_presses_for_a_period_while_the_target_is_reached_and_tasks_wait() -> None:
    engine = with_event(EVENTS[0], 88.0, stalled_percent=10.1)

    assert engine.levels[29:31] == [Level.WARN, Level.PRUNE]
    assert engine.reasons[30] == Reason.EVENT
    assert engine.transitions == [30.0, 41.0]


@pytest.mark.parametrize("stalled_percent", [0.0, 10.0, math.nan])
def test_a_reclaim_event_above_the_target_that_nobody_waits_for_is_page_cache(stalled_percent: float) -> None:
    assert set(with_event(EVENTS[0], 88.0, stalled_percent=stalled_percent).levels) == {Level.WARN}


def test_a_reclaim_event_over_the_limit_presses_at_once_without_any_stall() -> None:
    engine = Engine()
    engine.set(EVENTS[0], 7.0)
    engine.feed([88.0] * 30)
    engine.set(EVENTS[0], 8.0)
    engine.feed([92.1])

    assert engine.reasons[-1] == Reason.EVENT


def test_a_reclaim_event_below_the_target_is_page_cache_and_presses_nothing() -> None:
    assert set(with_event(EVENTS[0], 60.0, stalled_percent=99.0).levels) == {Level.OK}


def test_an_oom_event_is_critical_at_any_value() -> None:
    engine = with_event(EVENTS[1], 60.0)

    assert engine.levels[30] == Level.CRITICAL
    assert engine.reasons[30] == Reason.EVENT
    assert engine.transitions == [30.0, 41.0]


def test_an_oom_event_counts_before_half_a_period_is_observed() -> None:
    engine = Engine()
    engine.set(EVENTS[1], 0.0)
    engine.feed([60.0])
    engine.set(EVENTS[1], 1.0)

    assert engine.feed([60.0]).levels == [Level.OK, Level.CRITICAL]


@pytest.mark.parametrize("name", EVENTS)
def test_a_counter_that_is_first_seen_or_falls_is_no_event(name: str) -> None:
    engine = Engine().feed([88.0] * 20)
    for count in (math.nan, 50.0, 50.0, math.nan, 50.0, 3.0, 3.0):
        engine.set(name, count)
        engine.feed([88.0])

    assert set(engine.levels) == {Level.WARN}


def test_a_value_that_goes_missing_keeps_its_latches_for_a_period_and_is_then_unknown() -> None:
    engine = Engine().feed([60.0] * 30).feed([94.0] * 30).feed([unknown(Unknown.ERROR)] * 20)

    assert engine.transitions == [
        engine.first(Level.PRUNE),
        71.0,
    ]  # the last reading was at 59: 11 s, a tenth for delay
    assert engine.reasons[70] == Reason.LEVEL
    assert engine.levels[71:] == [Level.OK] * 9
    assert set(engine.reasons[71:]) == {Reason.UNKNOWN}


def test_a_value_that_comes_back_within_a_period_finds_its_latches() -> None:
    engine = Engine().feed([60.0] * 30).feed([94.0] * 30).feed([math.nan] * 8).feed([94.0] * 5)

    assert len(engine.transitions) == 1


def test_a_value_that_comes_back_after_a_period_is_observed_anew() -> None:
    engine = Engine().feed([60.0] * 30).feed([94.0] * 30).feed([math.nan] * 30).feed([94.0] * 10)

    assert engine.transitions[-1] == 95.0  # five seconds after it came back


@pytest.mark.parametrize("limit_mb", [None, 92.0])
def test_an_unknown_capacity_leaves_the_share_unknown(limit_mb: float | None) -> None:
    engine = Engine(Settings(max_memory_usage_mb=limit_mb))
    engine.set("memory.capacity_bytes", math.nan)
    engine.feed([95.0] * 20)

    assert engine.reasons[-1] == Reason.UNKNOWN


def test_where_no_capacity_is_measured_a_configured_limit_works_alone() -> None:
    """As in a table of text with one column."""
    engine = Engine(metrics=MEMORY[:1]).feed([99.0] * 20)

    assert engine.reasons[-1] == Reason.LEVEL
    assert engine.levels[-1] == Level.PRUNE


def test_a_limit_above_the_capacity_presses_at_90_percent_and_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(Settings(max_memory_usage_mb=4096.0))
    engine.feed([60.0] * 20)

    assert engine.track("limit") == pytest.approx(90 * MEBIBYTE)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "4.0 GB" in line
    assert "100.0 MB" in line
    assert "90.0 MB" in line


def test_an_episode_is_one_line_at_its_begin_and_one_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    Engine().feed([60.0] * 30).feed([94.0] * 30).feed([60.0] * 30)

    begin, end = [record.getMessage() for record in caplog.records]
    numbers = "at 94.0 MB, mean 87.8 MB, limit 92.0 MB, capacity 100.0 MB"
    assert begin == f"memory: prune (level), {numbers}"
    assert end == "memory: over after 32.0 s, now 60.0 MB, target 86.9 MB"


def test_a_takeover_keeps_latches_and_waits_for_nothing() -> None:
    engine = Engine().feed([60.0] * 30).feed([94.0] * 15)
    pressed_since = engine.track("pressed_since_seconds")

    engine.skip(2.0)
    engine.restart(take_over=True)
    engine.feed([94.0] * 3)

    assert len(engine.transitions) == 1
    assert engine.track("pressed_since_seconds") == pressed_since
    assert engine.track("episodes_count") == 1


def test_a_takeover_after_more_than_a_period_forgets_the_latches_and_observes_anew() -> None:
    engine = Engine().feed([60.0] * 30).feed([94.0] * 15)

    engine.skip(60.0)
    engine.restart(take_over=True)
    engine.feed([94.0] * 10)

    assert engine.pressed[45:].tolist() == [False] * 5 + [True] * 5
    assert engine.track("episodes_count") == 2


def test_a_start_without_history_observes_half_a_period_first() -> None:
    engine = Engine().feed([60.0] * 30).feed([94.0] * 15)

    engine.restart()
    engine.feed([94.0] * 10)

    assert engine.pressed[45:].tolist() == [False] * 5 + [True] * 5


def test_a_takeover_is_not_seen_in_the_decisions() -> None:
    random = np.random.default_rng(5)
    trace = 85 + 13 * np.sin(np.arange(400) / 15) + random.normal(0, 1, 400)
    whole, restarted = Engine(), Engine()
    for place, percent in enumerate(trace):
        if place % 37 == 5:
            restarted.restart(take_over=True)
        whole.feed([percent])
        restarted.feed([percent])

    assert len(whole.transitions) > 4
    assert whole.verdicts == restarted.verdicts


@pytest.mark.parametrize("damage", [math.inf, -1.0, math.nan, 0.5, 1e300])
@pytest.mark.parametrize("name", ["level", "reasons", "episodes_count"])
def test_a_damaged_state_starts_that_limit_afresh(damage: float, name: str) -> None:
    published = fresh_published(2)
    published[:, step.EPISODES] = 3.0
    published[1, TRACK_FIELDS.index(name)] = damage

    resumed = resumed_published(published, 2)

    assert resumed[0, step.EPISODES] == 3
    np.testing.assert_array_equal(resumed[1], fresh_published(1)[0])


def test_a_state_of_another_shape_is_not_resumed() -> None:
    np.testing.assert_array_equal(resumed_published(np.zeros((3, 5)), 2), fresh_published(2))


def test_a_state_from_the_future_is_forgotten() -> None:
    """A machine that was rebooted: its monotonic clock began again."""
    engine = Engine().feed([60.0] * 30).feed([94.0] * 15)
    engine.restart(take_over=True)
    engine.number += 1

    engine.set("memory.usage_bytes", 60 * MEBIBYTE)
    engine.sample(at_ns=10**9)

    assert engine.levels[-1] == Level.OK


def test_samples_that_come_late_prune_as_they_would_in_time() -> None:
    random = np.random.default_rng(6)
    engine = Engine(Settings(observation_period=1.0))
    for percent in [60.0] * 10 + [94.0] * 10:
        engine.set("memory.usage_bytes", percent * MEBIBYTE)
        engine.sample(at_ns=engine.now_ns + 10**9 + int(random.integers(-20_000_000, 20_000_000)))

    assert not engine.pressed[:10].any()
    assert engine.pressed[11:].all()


def test_interpreted_and_compiled_decide_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of memory with events and with samples between the turns, of a rate, and of GPUs, with holes in each."""
    random = np.random.default_rng(7)
    names = ("memory.usage_bytes", "cpu.cpu_percent", "gpu:0.memory_percent", "gpu:1.memory_percent")
    trace = 85 + 13 * np.sin(np.arange(300)[:, None] / [15, 10, 20, 30]) + random.normal(0, 1, (300, len(names)))
    trace[random.random(trace.shape) < 0.05] = np.nan
    given = Settings(max_memory_usage_mb=None, max_cpu_usage_percent=80.0, max_gpu_memory_percent=85.0)
    runs = []
    step.DECIDE.compile()
    for run in (step.DECIDE.run, step.decide):
        monkeypatch.setattr(step.DECIDE, "run", run)
        engine = Engine(replace(given, target_utilization=0.9), EVERYTHING)
        for place, row in enumerate(trace):
            engine.set(EVENTS[0], float(place // 50))
            for name, percent in zip(names, row, strict=True):
                engine.set(name, percent * (MEBIBYTE if name.endswith("bytes") else 1))
            engine.sample(between=place % 5 == 4)
        runs.append((engine.verdicts, engine.words, np.array(engine.tracks).tobytes(), engine.decider.wait_seconds))

    assert {word >> 32 & 3 for words in runs[0][1] for word in words} == {0, 1, 2, 3}
    assert runs[0] == runs[1]
