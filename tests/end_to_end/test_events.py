"""What the kernel of this host does to a full cgroup, and what a real sampler makes of it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from shm_monitor.schema import Level
from shm_monitor.segment.flags import level_of
from tests.support.cgroups import child_in, remove
from tests.support.host_trees import is_root
from tests.support.load_cgroup import memory_group, sampler
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from shm_monitor.snapshot.structs import LimitState, Snapshot

pytestmark = [pytest.mark.processes, pytest.mark.skipif(not is_root(), reason="making cgroups needs root")]

MIB = 1 << 20
LIMIT_MB = 128
FILE_MB = 400


def memory_limit(snapshot: Snapshot) -> LimitState:
    """Return the limit of our own cgroup, the level that goes."""
    (found,) = [limit for limit in snapshot.limits if limit.limit == "memory:0"]
    return found


def test_a_page_cache_that_fills_the_cgroup_never_presses(tmp_path: Path) -> None:
    """400 MB read through 128 MB: the limit is reached again and again, and nothing of it is memory in use."""
    file = tmp_path / "data"
    with file.open("wb") as stream:
        block = os.urandom(MIB)
        for _ in range(FILE_MB):
            stream.write(block)
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with (
        memory_group(LIMIT_MB) as group,
        sampler(scope=group.name, check_interval=0.02, observation_period=0.5) as manager,
        child_in(group) as child,
    ):
        reader = manager.reader
        before = reader.snapshot()
        for _ in range(2):
            child.do(f"cache({str(file)!r})")
        time.sleep(0.6)  # a period, so that what came up in it would be seen
        after = reader.snapshot()
        levels = {level_of(sample.verdict) for sample in reader.view().samples(after=before.sequence)}
        raw = "memory.usage_in_bytes" if group.version == 1 else "memory.current"
        charged = int((group.path / raw).read_text())

    assert charged > 0.9 * LIMIT_MB * MIB, "the cache fills the cgroup"
    assert (after.memory.reclaim_events_count or 0) > (before.memory.reclaim_events_count or 0)
    assert (after.memory.usage_bytes or 0) < 0.25 * LIMIT_MB * MIB
    assert levels == {Level.OK}


def test_an_oom_kill_within_the_cgroup_is_a_critical_event() -> None:
    """Also for who is not killed: the kernel has begun, and goes on."""
    with (
        memory_group(LIMIT_MB) as group,
        sampler(scope=group.name, check_interval=0.1, observation_period=2.0) as manager,
        child_in(group) as survivor,
        child_in(group) as victim,
    ):
        reader = manager.reader
        assert reader.should_prune() is False
        with pytest.raises((AssertionError, BrokenPipeError)):
            victim.do(f"hold({2 * LIMIT_MB})")
        killed = reader.snapshot().sequence
        wait_until(lambda: reader.snapshot().sequence >= killed + 2)
        explanation, snapshot = reader.explain(), reader.snapshot()
        survivor.do("pass")

    assert explanation.level == snapshot.level == "critical"
    event = next(one for one in explanation.reasons if one.reason == "event")
    assert (event.limit, event.level, event.scope) == ("memory:0", "critical", group.name)
    assert (snapshot.memory.oom_events_count or 0) >= 1


@pytest.mark.slow
def test_an_oom_kill_in_the_cgroup_of_somebody_else_is_nothing_to_us() -> None:
    """Neither for a sampler whose scope is another cgroup nor for one that looks at the whole host."""
    with (
        memory_group(LIMIT_MB) as theirs,
        memory_group(LIMIT_MB) as ours,
        sampler(scope="host", check_interval=0.1, observation_period=1.0) as of_host,
        sampler(scope=ours.name, check_interval=0.1, observation_period=1.0) as of_ours,
        child_in(theirs) as victim,
    ):
        readers = [of_host.reader, of_ours.reader]
        before = [reader.snapshot().sequence for reader in readers]
        with pytest.raises((AssertionError, BrokenPipeError)):
            victim.do(f"hold({2 * LIMIT_MB})")
        wait_until(lambda: all(one.snapshot().sequence > then + 15 for one, then in zip(readers, before, strict=True)))
        levels = [
            {level_of(sample.verdict) for sample in reader.view().samples(after=then)}
            for reader, then in zip(readers, before, strict=True)
        ]

    assert levels == [{Level.OK}, {Level.OK}]


@pytest.mark.slow
def test_a_cgroup_that_goes_leaves_its_limit_unknown_neither_zero_nor_over() -> None:
    """Pressed when it goes: the latches hold for a period, then the limit is unknown and presses nothing."""
    with (
        memory_group(LIMIT_MB) as group,
        sampler(scope=group.name, check_interval=0.1, observation_period=1.0) as manager,
    ):
        reader = manager.reader
        with child_in(group) as child:
            child.do(f"hold({LIMIT_MB - 10})")
            wait_until(reader.should_prune)
        remove(group.path)
        wait_until(lambda: reader.snapshot().memory.usage_bytes is None)
        gone = reader.snapshot()
        wait_until(lambda: not reader.should_prune())
        later, headroom, explained = reader.snapshot(), reader.headroom(), reader.explain()
        group.path.mkdir()  # for the fixture to remove

    assert gone.unavailable["memory.usage_bytes"] == "not_supported"
    assert memory_limit(gone).level in {"prune", "critical"}, "what was seen last holds for a period"
    assert [one for one in later.limits if one.limit == "memory:0" and one.value is not None] == []
    assert memory_limit(later).reasons == ("unknown",)
    assert [(one.limit, one.scope, one.why) for one in explained.unknown] == [("memory:0", group.name, "not_supported")]
    assert f"memory of our cgroup {group.name}: unknown (not supported), presses nothing" in str(explained)
    assert headroom.limit != "memory:0"
    assert later.cpu.host_cpu_percent is not None
    assert later.memory.host_total_bytes is not None
