"""Memory on recorded trees: which level counts, what of it is in use, and what is unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shm_monitor.collectors.cgroup.scope import Scope
from shm_monitor.collectors.host_memory import Meminfo
from shm_monitor.collectors.memory import MemoryCollector
from tests.support.host_trees import Tree, readings, sample

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30
TRAIN = "sys/fs/cgroup/jobs.slice/pod1/train"
POD = "sys/fs/cgroup/jobs.slice/pod1"
LEVEL = ("usage_bytes", "capacity_bytes", "available_bytes")


def memory(tree: Tree, scope: str = "auto") -> MemoryCollector:
    return MemoryCollector(Scope.parse(scope), tree.roots, shm=str(tree.top), clock=tree.clock)


def scope_of(collector: MemoryCollector) -> str:
    (index,) = readings(collector, "scope")
    assert isinstance(index, float)
    return collector.facts["scopes"][int(index)]


def test_of_all_levels_the_one_with_the_smallest_headroom_counts(tmp_path: Path) -> None:
    """pod1 has 8 GiB and holds 7, 2 of them clean cache; train may hold 3840 MiB and holds 2120: 1720 MiB are left."""
    collector = memory(Tree("v2", tmp_path))

    assert collector.facts["scopes"] == ["host", "/jobs.slice", "/jobs.slice/pod1", "/jobs.slice/pod1/train"]
    assert readings(collector, *LEVEL) == (2120 * MIB, 3840 * MIB, 1720 * MIB)
    assert scope_of(collector) == "/jobs.slice/pod1/train"


def test_clean_page_cache_is_no_use_but_dirty_pages_and_shmem_are(tmp_path: Path) -> None:
    """3500 MiB in all: 1000 inactive + 500 active file, of which 120 are dirty or on their way; 300 MiB are shmem."""
    (usage,) = readings(memory(Tree("v2", tmp_path)), "usage_bytes")

    assert usage == (3500 - 1000 - 500 + 100 + 20) * MIB


def test_memory_high_is_a_limit_like_memory_max(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = memory(tree)
    tree.write(f"{TRAIN}/memory.high", "max\n")

    assert readings(collector, "capacity_bytes") == (4 * GIB,)


def test_a_parent_that_siblings_fill_is_the_level_that_counts(tmp_path: Path) -> None:
    """Its usage is paired with its own limit, not with that of the leaf."""
    tree = Tree("v2", tmp_path)
    collector = memory(tree)
    tree.replace(f"{POD}/memory.stat", f"inactive_file {GIB}", "inactive_file 0")
    tree.replace(f"{POD}/memory.stat", f"\nactive_file {GIB}", "\nactive_file 0")

    assert readings(collector, *LEVEL) == (7 * GIB, 8 * GIB, GIB)
    assert scope_of(collector) == "/jobs.slice/pod1"


def test_a_full_host_is_the_level_that_counts(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = memory(tree)
    tree.replace("proc/meminfo", "16418020 kB", "1000 kB")

    assert readings(collector, *LEVEL) == ((24684092 - 1000) * 1024, 24684092 * 1024, 1000 * 1024)
    assert scope_of(collector) == "host"


def test_a_limit_that_is_changed_is_seen_at_the_next_sample(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = memory(tree)
    sample(collector)
    tree.write(f"{TRAIN}/memory.high", "max\n")
    tree.write(f"{TRAIN}/memory.max", f"{5 * GIB}\n")

    assert readings(collector, "capacity_bytes") == (5 * GIB,)


def test_usage_over_the_limit_leaves_nothing_and_reads_100_percent(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = memory(tree)
    tree.write(f"{TRAIN}/memory.high", f"{GIB}\n")

    assert readings(collector, "usage_bytes", "capacity_bytes", "available_bytes", "usage_percent") == (
        2120 * MIB,
        GIB,
        0,
        100,
    )


def test_reclaimable_slab_of_a_v2_cgroup_is_no_use(tmp_path: Path) -> None:
    """A data loader that looks up a million files fills its cgroup with dentries, which the kernel drops at need."""
    tree = Tree("v2", tmp_path)
    stat = (tmp_path / TRAIN / "memory.stat").read_text()
    tree.write(f"{TRAIN}/memory.stat", f"{stat}slab_reclaimable {700 * MIB}\n")

    assert readings(memory(tree), *LEVEL) == (1420 * MIB, 3840 * MIB, 2420 * MIB)


def test_kernel_memory_of_a_v1_cgroup_is_no_use_where_it_is_more_than_the_host_cannot_drop(tmp_path: Path) -> None:
    """v1 does not say what of it is reclaimable; what is left when everything fixed on the host is ours, is."""
    tree = Tree("v1", tmp_path)
    before = readings(memory(tree), "usage_bytes")[0]
    assert isinstance(before, float)
    meminfo = (tmp_path / "proc/meminfo").read_text()
    tree.write("proc/meminfo", f"{meminfo}AnonPages: 0 kB\n")
    fixed = int(Meminfo(tree.roots.proc).read().fixed_kernel)
    tree.write("sys/fs/cgroup/memory/memory.kmem.usage_in_bytes", f"{fixed + 100 * MIB}\n")

    assert readings(memory(tree), "usage_bytes") == (before - 100 * MIB,)


def test_v1_counts_the_totals_of_the_subtree(tmp_path: Path) -> None:
    """3 GiB in all less 1 GiB inactive and 512 MiB active file, 64 MiB of them dirty."""
    collector = memory(Tree("v1", tmp_path))

    assert readings(collector, "usage_bytes") == ((3072 - 1024 - 512 + 64) * MIB,)


def test_v1_knows_the_limit_of_a_parent_that_is_not_mounted_here(tmp_path: Path) -> None:
    """The own limit is the huge number that means none; hierarchical_memory_limit is the pod's."""
    collector = memory(Tree("v1", tmp_path))

    assert readings(collector, "capacity_bytes") == (4 * GIB,)
    assert scope_of(collector) == "/docker/4f1"


def test_v1_without_any_limit_is_bound_by_the_host(tmp_path: Path) -> None:
    tree = Tree("v1", tmp_path)
    tree.replace("sys/fs/cgroup/memory/memory.stat", f"limit {4 * GIB}", "limit 9223372036854771712")

    assert scope_of(memory(tree)) == "host"


def test_v1_parents_count_in_a_hybrid_tree(tmp_path: Path) -> None:
    collector = memory(Tree("hybrid", tmp_path))

    assert collector.facts["scopes"] == ["host", "/jobs", "/jobs/train"]
    assert readings(collector, *LEVEL) == ((9 * 1024 - 100) * MIB, 10 * GIB, (1024 + 100) * MIB)
    assert scope_of(collector) == "/jobs"


def test_a_v1_parent_without_use_hierarchy_binds_nobody(tmp_path: Path) -> None:
    tree = Tree("hybrid", tmp_path)
    tree.write("sys/fs/cgroup/memory/jobs/memory.use_hierarchy", "0\n")

    assert memory(tree).facts["scopes"] == ["host", "/jobs/train"]


def test_an_old_kernel_that_does_not_say_what_is_dirty_drops_the_inactive_pages_only(tmp_path: Path) -> None:
    tree = Tree("v1", tmp_path)
    tree.replace("sys/fs/cgroup/memory/memory.stat", f"total_dirty {64 * MIB}\n", "")

    assert readings(memory(tree), "usage_bytes") == (2 * GIB,)


def test_the_host_is_total_less_available_never_used_or_free(tmp_path: Path) -> None:
    found = sample(memory(Tree("v2", tmp_path), "host"))

    assert found["memory.usage_bytes"] == (24684092 - 16418020) * 1024
    assert found["memory.host_total_bytes"] == found["memory.capacity_bytes"] == 24684092 * 1024
    assert found["memory.host_available_bytes"] == 16418020 * 1024
    assert found["memory.host_cached_bytes"] == (6431492 + 74964) * 1024
    assert found["memory.swap_total_bytes"] == 2097148 * 1024
    assert found["memory.swap_used_bytes"] == (2097148 - 2096124) * 1024


def test_swap_rates_are_unknown_first_and_then_pages_per_second(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = memory(tree)
    fields = ("swap_in_bytes_per_second", "swap_out_bytes_per_second")

    assert readings(collector, *fields) == ("not_yet_sampled", "not_yet_sampled")
    tree.replace("proc/vmstat", "pswpin 1000\npswpout 2000", "pswpin 1010\npswpout 2040")
    tree.clock.forward(2)
    assert readings(collector, *fields) == (5 * 4096, 20 * 4096)


def test_events_are_those_of_our_subtree_and_of_the_limits_above_but_not_of_siblings(tmp_path: Path) -> None:
    """train: high 2, max 3, oom 1, kill 1; pod1 itself: max 5, oom 1; what memory.events of pod1 adds is not ours."""
    assert readings(memory(Tree("v2", tmp_path)), "reclaim_events_count", "oom_events_count") == (2 + 3 + 5, 2 + 1)


def test_v1_events_are_failcnt_and_oom_kill_of_every_level(tmp_path: Path) -> None:
    assert readings(memory(Tree("hybrid", tmp_path)), "reclaim_events_count", "oom_events_count") == (4 + 1, 1 + 0)


def test_kills_before_the_sampler_are_no_news_of_the_host(tmp_path: Path) -> None:
    """Three there were. The next sampler cannot tell which of them were in the cgroups of others."""
    collector = memory(Tree("v2", tmp_path), "host")

    assert readings(collector, "reclaim_events_count", "oom_events_count") == ("not_supported", 0)


def test_kills_count_for_the_host_only_while_the_host_is_short_of_memory(tmp_path: Path) -> None:
    """A kill within the cgroup of somebody else is in /proc/vmstat too."""
    tree = Tree("v2", tmp_path)
    collector = memory(tree, "host")
    assert readings(collector, "oom_events_count") == (0,)
    tree.replace("proc/vmstat", "oom_kill 3", "oom_kill 5")
    assert readings(collector, "oom_events_count") == (0,)
    (available,) = [line for line in (tmp_path / "proc/meminfo").read_text().splitlines() if "MemAvailable" in line]
    tree.replace("proc/meminfo", available, "MemAvailable: 1000 kB")
    tree.replace("proc/vmstat", "oom_kill 5", "oom_kill 6")
    assert readings(collector, "oom_events_count") == (1,)
    tree.replace("proc/meminfo", "MemAvailable: 1000 kB", available)
    tree.replace("proc/vmstat", "oom_kill 6", "oom_kill 7")
    assert readings(collector, "oom_events_count") == (2,), "it was short just before"


def test_v1_limits_on_memory_and_swap_together_are_limits_too(tmp_path: Path) -> None:
    """Where both are the same, as without swap, the kernel counts the one that it tries first."""
    tree = Tree("hybrid", tmp_path)
    tree.write("sys/fs/cgroup/memory/jobs/train/memory.memsw.failcnt", "7\n")

    assert readings(memory(tree), "reclaim_events_count") == (4 + 1 + 7,)


def test_being_moved_changes_the_levels_and_a_level_that_was_not_there_has_no_index(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = memory(tree)
    sample(collector)
    tree.write("proc/self/cgroup", "0::/jobs.slice/pod2\n")

    assert readings(collector, *LEVEL, "scope") == (2 * GIB, 3 * GIB, GIB, "error")


def test_another_process_and_another_path_can_be_watched(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)

    for scope in ("pid:77", "/jobs.slice/pod2"):
        assert readings(memory(tree, scope), *LEVEL) == (2 * GIB, 3 * GIB, GIB)


def test_a_watched_cgroup_that_is_removed_is_unknown_and_the_host_stays(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = memory(tree, "/jobs.slice/pod2")
    for file in (tmp_path / "sys/fs/cgroup/jobs.slice/pod2").iterdir():
        file.unlink()

    assert readings(collector, *LEVEL, "host_total_bytes") == (*["not_supported"] * 3, 24684092 * 1024)


@pytest.mark.parametrize(
    ("file", "text", "unknown"),
    [
        ("memory.max", "garbage\n", {"usage_bytes", "capacity_bytes", "available_bytes", "usage_percent", "scope"}),
        ("memory.current", "\n", {"usage_bytes", "capacity_bytes", "available_bytes", "usage_percent", "scope"}),
        ("memory.stat", "x y\n", {"usage_bytes", "capacity_bytes", "available_bytes", "usage_percent", "scope"}),
        ("memory.events", "high x\n", {"reclaim_events_count", "oom_events_count"}),
    ],
)
def test_an_unreadable_file_of_our_cgroup_costs_its_own_readings_only(
    tmp_path: Path, file: str, text: str, unknown: set[str]
) -> None:
    tree = Tree("v2", tmp_path)
    collector = memory(tree)
    sample(collector)
    tree.clock.forward(1)
    tree.write(f"{TRAIN}/{file}", text)

    found = sample(collector)

    whole = {name: value for name, value in found.items() if name.startswith("memory.")}
    assert {name.removeprefix("memory.") for name, value in whole.items() if isinstance(value, str)} == unknown


def test_where_proc_shows_processes_only_the_limits_of_cgroups_are_measured(tmp_path: Path) -> None:
    """As with subset=pid (systemd: ProcSubset): what the host has is unknown, and says nothing of a cgroup."""
    tree = Tree("v2", tmp_path)
    tree.remove("proc/meminfo")
    tree.remove("proc/vmstat")
    collector = memory(tree)

    assert readings(collector, *LEVEL) == (2120 * MIB, 3840 * MIB, 1720 * MIB)
    assert readings(collector, "host_total_bytes") == ("not_supported",)


def test_a_memory_controller_that_is_enabled_later_is_seen(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    files = {file.name: file.read_text() for file in (tmp_path / TRAIN).glob("memory.*")}
    for file in files:
        tree.remove(f"{TRAIN}/{file}")
    tree.write(f"{TRAIN}/cgroup.controllers", "cpu\n")
    tree.write(f"{POD}/cgroup.controllers", "cpu memory\n")
    collector = memory(tree)
    assert readings(collector, "capacity_bytes") == (8 * GIB,)
    for file, text in files.items():
        tree.write(f"{TRAIN}/{file}", text)
    tree.write(f"{TRAIN}/cgroup.controllers", "cpu memory\n")

    assert readings(collector, "capacity_bytes") == (3840 * MIB,)
