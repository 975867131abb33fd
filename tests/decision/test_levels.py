"""Memory has a limit for each level: the host, our own cgroup, its parent and so on, each against its own capacity."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shm_monitor.decision.rules import MEBIBYTE, rules
from shm_monitor.schema import Level, Reason
from tests.support.engine import Engine, Settings, metric

FIELDS = ("capacity_bytes", "reclaim_events_count", "oom_events_count")
LEVELS = ("host", "0", "1")
METRICS = [
    *(metric("memory", "usage_bytes", instance=level, rolled=True) for level in LEVELS),
    metric("memory", "usage_bytes", rolled=True),
    *(metric("memory", field, instance=level) for level in LEVELS for field in FIELDS),
    metric("memory", "capacity_bytes"),
    metric("stall", "memory_some_percent"),
]
NAMES = ["memory:host", "memory:0", "memory:1"]
seeds = pytest.mark.parametrize("seed", range(20))


def engine_of(limit_mb: float | None = None, **capacities_mb: float) -> Engine:
    """Return an engine whose levels have *capacities_mb*; without one nothing limits the level."""
    engine = Engine(Settings(max_memory_usage_mb=limit_mb, target_utilization=0.945), METRICS)
    for level in LEVELS:
        engine.set(f"memory:{level}.capacity_bytes", capacities_mb.get(level, math.nan) * MEBIBYTE)
        engine.set(f"memory:{level}.usage_bytes", 0.0)
    return engine


def feed(engine: Engine, **usages_mb: float) -> None:
    """Take a sample with the usage of each level in MB."""
    for level, usage in usages_mb.items():
        engine.set(f"memory:{level}.usage_bytes", usage * MEBIBYTE)
    engine.sample()


def test_every_level_has_a_limit_with_counters_and_a_capacity_of_its_own() -> None:
    found = rules(Settings(), METRICS)

    assert [rule.limit.name for rule in found] == NAMES
    assert [METRICS[rule.value].name for rule in found] == [f"memory:{level}.usage_bytes" for level in LEVELS]
    assert [METRICS[rule.capacity].name for rule in found] == [f"memory:{level}.capacity_bytes" for level in LEVELS]
    assert [METRICS[rule.ooms].name for rule in found] == [f"memory:{level}.oom_events_count" for level in LEVELS]
    assert {METRICS[rule.stall].name for rule in found} == {"stall.memory_some_percent"}


@seeds
def test_a_full_parent_presses_while_the_child_that_is_as_tight_takes_turns_with_it(seed: int) -> None:
    """Version 1 looked at the level that ends first: bytes of either in turns, which never made a mean."""
    random = np.random.default_rng(seed)
    engine = engine_of(**{"host": 4096, "0": 160, "1": 1024})
    for _ in range(30):
        feed(engine, **{"host": 1000, "0": 80, "1": 500})
    for second in range(60):
        parent, child = (97, 94) if second % 2 else (94, 96)
        percents = random.normal((min(parent, 95.5), child), 0.2)
        feed(engine, **{"1": 10.24 * percents[0], "0": 1.6 * min(percents[1], 96.4)})
    for _ in range(40):
        feed(engine, **{"0": 80, "1": 500})

    assert len(engine.transitions) == 2
    begin, end = engine.transitions
    assert 30 < begin <= 30 + 9
    assert 9 <= end - 90 <= 11
    assert max(engine.levels_of("memory:host")) == Level.OK


def test_a_level_that_nothing_limits_says_nothing_and_is_decided_once_it_has_a_limit() -> None:
    engine = engine_of(**{"host": 4096, "0": 160})
    for _ in range(20):
        feed(engine, **{"1": 999})
    assert engine.reasons_of("memory:1")[-1] == Reason(0)
    assert math.isnan(engine.track("limit", NAMES.index("memory:1")))

    engine.set("memory:1.capacity_bytes", 1024 * MEBIBYTE)
    feed(engine, **{"1": 999})

    assert engine.levels_of("memory:1")[-1] == Level.CRITICAL


@pytest.mark.parametrize(
    ("capacities", "about"),
    [
        ({"host": 4096, "0": 160, "1": 1024}, "memory:0"),
        ({"host": 4096, "1": 1024}, "memory:1"),
        ({"host": 4096}, "memory:host"),
    ],
)
def test_the_configured_limit_counts_for_the_innermost_level_that_has_a_capacity(
    capacities: dict[str, float], about: str
) -> None:
    engine = engine_of(100.0, **capacities)
    feed(engine)

    limits = {name: engine.track("limit", place) / MEBIBYTE for place, name in enumerate(NAMES)}
    default = {f"memory:{level}": pytest.approx(0.9 * size) for level, size in capacities.items()}
    assert {name: limit for name, limit in limits.items() if limit == limit} == default | {about: 100.0}


def test_a_level_that_cannot_be_read_keeps_the_configured_limit_and_is_unknown() -> None:
    engine = engine_of(100.0, **{"host": 4096, "0": 160, "1": 1024})
    feed(engine, **{"host": 1000, "0": math.nan, "1": 500})
    engine.set("memory:0.capacity_bytes", math.nan)
    for _ in range(15):
        feed(engine)

    assert engine.reasons_of("memory:0")[-1] == Reason.UNKNOWN
    assert set(engine.levels_of("memory:1")) == {Level.OK}


@pytest.mark.parametrize(("before", "after"), [(512.0, 285.0), (285.0, 512.0)])
def test_a_limit_that_is_resized_in_place_needs_no_new_history(before: float, after: float) -> None:
    engine = engine_of(**{"host": 4096, "0": before})
    for _ in range(30):
        feed(engine, **{"0": 270})
    engine.set("memory:0.capacity_bytes", after * MEBIBYTE)
    for _ in range(12):
        feed(engine)

    levels = engine.levels_of("memory:0")
    assert (levels[29] >= Level.PRUNE) == (before < after)
    assert (levels[-1] >= Level.PRUNE) == (after < before)


def test_the_first_sample_of_a_smaller_capacity_is_seen_at_once_where_it_is_nearly_full() -> None:
    engine = engine_of(**{"host": 4096, "0": 512})
    for _ in range(30):
        feed(engine, **{"0": 280})
    engine.set("memory:0.capacity_bytes", 285 * MEBIBYTE)
    feed(engine)

    assert engine.levels_of("memory:0")[-1] == Level.CRITICAL
