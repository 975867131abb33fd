"""Levels of memory, files that are read, and limits that move, in real cgroups with a real sampler at its defaults.

What is asserted are times and numbers of the sampler's own samples; how long the machine takes decides nothing.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from shm_monitor import attach
from shm_monitor.schema import Level
from shm_monitor.segment.flags import level_of
from tests.support.cgroups import MIB, Child, Group, child_in
from tests.support.host_trees import is_root
from tests.support.load_cgroup import memory_group, sampler
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shm_monitor.config.resource import ResourceConfig
    from shm_monitor.worker.reader import Reader

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not is_root(), reason="making cgroups needs root"),
]

LIMIT_MB, SMALL_MB = 512, 285
PARENT_MB, OURS_MB = 1024, 160
FILE_MB = 16 * 1024
TURNS = 6
READ_SECONDS = 40.0
READ_MB_PER_SECOND = 100


class Taken(NamedTuple):
    """One sample: when, in seconds, its level, and usage and capacity in MB of each level of memory asked for."""

    seconds: float
    level: Level
    usage_mb: tuple[float, ...]
    capacity_mb: tuple[float, ...]


def taken(reader: Reader, *levels: str, since: int = 0) -> list[Taken]:
    """Return the samples after number *since* that are still in the ring."""
    names = [f"memory:{level}.{field}" for field in ("usage_bytes", "capacity_bytes") for level in levels]
    history = reader.history(names, since=since)
    verdicts = {one.number: one.verdict for one in reader.view().samples(after=since)}
    rows = zip(
        history.sequences, history.times, zip(*(history.columns[name] for name in names), strict=True), strict=True
    )
    found = []
    for number, seconds, numbers in rows:
        if number not in verdicts:  # taken in between
            continue
        mb = tuple((one or 0.0) / MIB for one in numbers)
        half = len(levels)
        found.append(Taken(seconds, level_of(verdicts[number]), mb[:half], mb[half:]))
    return found


def newest(reader: Reader, level: str = "0") -> Taken:
    """Return the newest sample."""
    return taken(reader, level, since=reader.snapshot().sequence - 1)[-1]


@contextlib.contextmanager
def watched(group: Group) -> Iterator[tuple[Reader, ResourceConfig]]:
    """Watch the memory of *group* at the default settings; it has been seen for half of the period."""
    with sampler(scope=group.name) as manager, attach(manager.name, watch=["memory"]) as reader:
        config = manager.config
        wait_until(lambda: reader.snapshot().sequence > 0.5 * config.observation_period / config.check_interval + 1)
        yield reader, config


def fill(child: Child, reader: Reader, share: float) -> None:
    """Let *child* hold so much that its cgroup is full to *share*, as the sampler sees it."""
    wait_for_next(reader)
    one = newest(reader)
    child.do(f"hold({round(share * one.capacity_mb[0] - one.usage_mb[0])})")


def test_a_parent_and_a_child_that_are_tight_in_turns_are_one_episode_that_names_the_level() -> None:
    """The first version rolled the bytes of the tightest level: 970 and 150 MB in turns were no pressure to it."""
    with memory_group(PARENT_MB) as parent:
        ours, rest = parent.child("ours"), parent.child("rest")
        ours.limit_memory(OURS_MB * MIB)
        with watched(ours) as (reader, config), child_in(ours) as child, child_in(rest) as other:
            since = reader.snapshot().sequence
            fill(child, reader, 0.92)
            wait_for_next(reader)
            other.do(f"hold({round(0.945 * PARENT_MB - newest(reader, '1').usage_mb[0])})")
            for _ in range(TURNS):
                wait_for_next(reader)
                child.do("hold(6)")
                wait_for_next(reader)
                child.do("blocks.pop().close()")
            wait_until(reader.should_prune)
            explained = str(reader.explain())
            seen = taken(reader, "0", "1", since=since)

    over = [one for one in seen if max(one.usage_mb[0] / OURS_MB, one.usage_mb[1] / PARENT_MB) > 0.9]
    pressed = [one for one in seen if one.level >= Level.PRUNE]
    first = seen.index(pressed[0])
    late = over[0].seconds + config.observation_period
    assert [one for one in seen if one.seconds > late and one.level < Level.PRUNE] == []
    assert all(one.level >= Level.PRUNE for one in seen[first:])
    assert f"memory of our cgroup {ours.name}: " in explained
    assert f"memory of the parent cgroup {parent.name}: " in explained
    ours_is_tighter = {one.usage_mb[0] / OURS_MB > one.usage_mb[1] / PARENT_MB for one in seen[first:]}
    assert ours_is_tighter == {True, False}
    print(f"\npressed {pressed[0].seconds - over[0].seconds:.2f} s after the first sample over the limit\n{explained}")


def wait_for_next(reader: Reader) -> None:
    """Wait until the sample of a later turn is there, whatever was taken in between."""
    turn = 0.9 * reader.snapshot().interval_seconds
    before = newest(reader).seconds
    wait_until(lambda: newest(reader).seconds > before + turn)


def test_reading_files_at_86_percent_is_calm(tmp_path: Path) -> None:
    """The page cache fills what is left and the kernel reclaims all the while: pressure, to the first version."""
    file = tmp_path / "data"
    with file.open("wb") as stream:
        stream.truncate(FILE_MB * MIB)  # a hole: its pages are cached as any others are
    with memory_group(LIMIT_MB) as group, watched(group) as (reader, _), child_in(group) as child:
        fill(child, reader, 0.86)
        wait_for_next(reader)
        since = reader.snapshot().sequence
        before = reader.snapshot().memory.levels["0"].reclaim_events_count
        child.do(READER.format(path=str(file), rate=READ_MB_PER_SECOND, count=FILE_MB))
        end = time.monotonic() + READ_SECONDS
        levels = set()
        while time.monotonic() < end:
            levels.add(reader.level())
            time.sleep(0.05)
        after = reader.snapshot().memory.levels["0"].reclaim_events_count
        seen = taken(reader, "0", since=since)

    assert before is not None
    assert after is not None
    usages = [one.usage_mb[0] for one in seen]
    print(f"\n{after - before} reclaims in {len(seen)} samples; usage {min(usages):.0f} to {max(usages):.0f} MB")
    assert after - before > 10
    assert len(seen) > 10
    assert 0.83 * LIMIT_MB < min(usages) <= max(usages) < 0.89 * LIMIT_MB
    assert {one.level for one in seen} | levels <= {Level.OK, Level.WARN}


READER = (
    "import time; data = open({path!r}, 'rb', buffering=0); "
    "turns = (data.read(1 << 20) and not time.sleep(1 / {rate}) for _ in range({count})); "
    "threading.Thread(target=lambda: all(turns), daemon=True).start()"
)


def test_a_limit_that_is_resized_while_we_run_counts_at_once() -> None:
    """512 to 285 MB with 265 in use is pressure; back at 512 it is over within a period and two samples."""
    with memory_group(LIMIT_MB) as group, watched(group) as (reader, config), child_in(group) as child:
        fill(child, reader, 0.93 * SMALL_MB / LIMIT_MB)
        wait_for_next(reader)
        since = reader.snapshot().sequence
        wait_for_next(reader)
        assert not reader.should_prune()

        group.limit_memory(SMALL_MB * MIB)
        wait_until(reader.should_prune)
        explained = str(reader.explain())
        group.limit_memory(LIMIT_MB * MIB)
        wait_until(lambda: not reader.should_prune())
        seen = taken(reader, "0", since=since)

    small = [one for one in seen if one.capacity_mb[0] == SMALL_MB]
    large = [one for one in seen if one.seconds > small[-1].seconds]
    late, done = (one[0].seconds + config.observation_period for one in (small, large))
    assert [one for one in small if one.seconds > late and one.level < Level.PRUNE] == []
    assert [one for one in large if one.seconds > done + 2 * config.check_interval and one.level >= Level.PRUNE] == []
    assert large[-1].level < Level.PRUNE
    assert f"of {SMALL_MB}.0 MB" in explained
    print(f"\nover {large[-1].seconds - large[0].seconds:.2f} s after the limit was 512 MB again")
