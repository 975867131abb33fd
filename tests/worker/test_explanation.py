"""What a reader says beside yes and no: why, how much is left, how much to shed, and when it changes."""

from __future__ import annotations

import asyncio
import math
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

import shm_monitor as sm
from shm_monitor.errors import UnknownMetricError
from shm_monitor.schema import Unknown, unknown
from shm_monitor.worker.explanation import ReasonState
from tests.support.children import PYTHON
from tests.support.fake_sampler import FakeSampler
from tests.support.surroundings import child_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

CALM = [50.0] * 12


@pytest.fixture
def sampler(name: str) -> Iterator[FakeSampler]:
    """Memory of 100 bytes, limit 90, target 81, period 10 s, one sample a second; two GPUs with limits."""
    made = FakeSampler(name, gpus=2, max_gpu_usage_percent=90.0, max_gpu_memory_percent=90.0)
    yield made
    made.close()


@pytest.fixture
def reader(sampler: FakeSampler, name: str) -> Iterator[sm.Reader]:
    sampler.feed(*CALM)
    with sm.attach(name) as attached:
        yield attached


def test_a_calm_sampler_needs_no_reasons(reader: sm.Reader) -> None:
    found = reader.explain()

    assert (found.should_prune, found.level, found.reasons, found.stale) == (False, "ok", (), False)
    assert reader.reasons() == ()
    assert reader.level() == sm.Level.OK


def test_a_reason_keeps_the_numbers_of_the_moment_it_was_set(sampler: FakeSampler, reader: sm.Reader) -> None:
    sampler.feed(98.0)
    first = reader.explain()
    sampler.feed(60.0)
    later = reader.explain()

    assert [one.reason for one in first.reasons] == ["capacity"]
    assert (first.reasons[0].limit, first.reasons[0].level, first.reasons[0].scope) == ("memory", "critical", "host")
    assert (later.reasons[0].value, later.reasons[0].capacity) == (98.0, 100.0)
    assert later.reasons[0].since == pytest.approx(first.reasons[0].since, abs=1e-3)
    assert first.reasons[0].since == pytest.approx(first.timestamp)


def test_an_explanation_reads_as_text(sampler: FakeSampler, reader: sm.Reader) -> None:
    sampler.feed(98.0)

    text = str(reader.explain())

    assert text.startswith("CRITICAL\n  memory of the host: 98 of 100 B, capacity (critical), mean ")


def test_a_limit_that_nobody_knows_is_named_with_its_reason(sampler: FakeSampler, reader: sm.Reader) -> None:
    assert reader.explain().unknown == ()
    sampler.feed(*[unknown(Unknown.NOT_SUPPORTED)] * 12)

    found = reader.explain()

    assert [(one.limit, one.scope, one.why) for one in found.unknown] == [("memory", "host", "not_supported")]
    assert str(found).endswith("memory of the host: unknown (not supported), presses nothing")
    assert not found.should_prune


@pytest.mark.parametrize(
    ("limit", "scope", "capacity", "text"),
    [
        ("memory:1", "/job17", 16.0, "memory of the parent cgroup /job17: 15.2 of 16.0 GB, level (prune)"),
        ("memory:0", "/job17/a", 16.0, "memory of our cgroup /job17/a: 15.2 of 16.0 GB, level (prune)"),
        ("memory:3", "/", 2048.0, "memory of the cgroup /: 15.2 GB of 2.0 TB, level (prune)"),
        ("memory:host", "host", 16.0, "memory of the host: 15.2 of 16.0 GB, level (prune)"),
        ("memory:0", "", 16.0, "memory:0: 15.2 of 16.0 GB, level (prune)"),
    ],
)
def test_a_reason_of_memory_says_whose_it_is(limit: str, scope: str, capacity: float, text: str) -> None:
    gib = 2.0**30
    reason = ReasonState(
        limit, "level", "prune", "bytes", scope, 0.0, 15.2 * gib, None, 14.4 * gib, capacity * gib, None, 1.5 * gib
    )

    assert str(reason).startswith(text)
    assert ", 1.5 GB of swap left, " in str(reason)


def test_only_the_watched_limits_count(sampler: FakeSampler, name: str) -> None:
    """Four GPUs at 40/40/40/97.5 have a mean of 54: each is its own limit."""
    sampler.readings["gpu:1.memory_percent"] = 97.5
    sampler.feed(*CALM)

    with sm.attach(name, watch=["gpu-memory:1"]) as concerned, sm.attach(name, watch=["memory", "gpu:0"]) as other:
        assert concerned.should_prune()
        assert {one.limit for one in concerned.explain().reasons} == {"gpu-memory:1"}
        assert not other.should_prune()
        assert other.explain().reasons == ()


def test_headroom_is_of_the_limit_that_has_least(sampler: FakeSampler, reader: sm.Reader, name: str) -> None:
    sampler.readings["gpu:0.memory_percent"] = 80.0
    sampler.feed(60.0)

    least = reader.headroom()
    with sm.attach(name, watch="memory") as watching:
        watched = watching.headroom()

    assert (least.limit, least.unit, watched.limit, watched.unit) == ("gpu-memory:0", "percent", "memory", "bytes")
    assert [least.ratio, least.amount] == pytest.approx([0.2, 20.0])
    assert [watched.ratio, watched.amount] == pytest.approx([0.4, 40.0])


def test_the_shed_fraction_runs_from_the_target_to_the_capacity(sampler: FakeSampler, name: str) -> None:
    sampler.feed(*CALM)
    with sm.attach(name, watch="memory") as reader:
        fractions = []
        for usage in (50.0, 81.0, 90.5, 100.0, 120.0):
            sampler.feed(usage)
            fractions.append(reader.shed_fraction())

    assert fractions == [0.0, 0.0, pytest.approx(0.5, abs=1 / 4095), 1.0, 1.0]


@pytest.mark.processes
@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_headroom_knows_the_limits_of_its_own_process(sampler: FakeSampler, name: str, limit: str) -> None:
    """`ulimit -v` and `-d`: an allocation beyond them fails, however much memory the machine has left."""
    sampler.feed(1.0)
    code = (
        "import resource, sys, shm_monitor as sm\n"
        "pages = list(map(int, open('/proc/self/statm').read().split()))\n"
        "kind = getattr(resource, sys.argv[2])\n"
        "used = pages[0 if sys.argv[2] == 'RLIMIT_AS' else 5] * resource.getpagesize()\n"
        "reader = sm.attach(sys.argv[1], watch='memory')\n"
        "reader.headroom(), reader.outlook()\n"
        "resource.setrlimit(kind, (used + (64 << 20), -1))\n"
        "least = reader.headroom()\n"
        "print(least.limit, least.unit, least.amount <= 64 << 20, reader.outlook().left_bytes <= 64 << 20)\n"
        "reader = sm.attach(sys.argv[1], watch='gpu-memory:0')\n"
        "print(reader.headroom().limit)\n"
    )
    said = subprocess.check_output([*PYTHON, "-c", code, name, limit], env=child_environment(), text=True)

    assert said == f"{limit} bytes True True\ngpu-memory:0\n"


def test_an_unknown_reading_is_neither_headroom_nor_shed(sampler: FakeSampler, name: str) -> None:
    sampler.feed(*CALM, math.nan)
    with sm.attach(name, watch="memory") as reader:
        assert reader.headroom().ratio is None
        assert reader.shed_fraction() == 0.0


def test_history_is_columns_with_the_newest_last(sampler: FakeSampler, reader: sm.Reader) -> None:
    sampler.feed(1.0, 2.0, math.nan, 4.0)

    found = reader.history(["memory.usage_bytes"], since=12)
    every_other = reader.history(["memory.usage_bytes"], since=12, step=2)

    assert found.columns == {"memory.usage_bytes": [1.0, 2.0, None, 4.0]}
    assert found.sequences == [13, 14, 15, 16]
    assert found.times == sorted(found.times)
    assert every_other.columns == {"memory.usage_bytes": [2.0, 4.0]}
    assert reader.history(seconds=1.5).sequences == [15, 16]


def test_history_of_a_metric_that_does_not_exist_suggests_one(reader: sm.Reader) -> None:
    with pytest.raises(UnknownMetricError, match=r"did you mean 'memory\.usage_bytes'"):
        reader.history(["memory.usage_byte"])


def test_waiting_ends_when_the_verdict_changes(sampler: FakeSampler, reader: sm.Reader) -> None:
    timer = threading.Timer(0.2, sampler.feed, (98.0,))
    timer.start()

    assert reader.wait(timeout=60.0)
    timer.join()
    assert reader.should_prune()


def test_waiting_for_nothing_ends_at_the_timeout(reader: sm.Reader) -> None:
    assert not reader.wait(timeout=0.1)


def test_an_event_loop_can_await_the_change(sampler: FakeSampler, reader: sm.Reader) -> None:
    async def both() -> bool:
        asyncio.get_running_loop().call_later(0.1, sampler.feed, 98.0)
        return await reader.changed(timeout=10.0)

    assert asyncio.run(both())
    assert not asyncio.run(reader.changed(timeout=0.05))


def test_watching_several_limits_waits_for_any(sampler: FakeSampler, name: str) -> None:
    sampler.feed(*CALM)
    with sm.attach(name, watch=["gpu", "memory"]) as reader:
        timer = threading.Timer(0.2, sampler.feed, (98.0,))
        timer.start()
        assert reader.wait(timeout=10.0)
        timer.join()
