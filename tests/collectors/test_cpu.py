"""CPU on recorded trees: ticks, quotas, affinity, and what is unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shm_monitor.collectors.cgroup.cpu import cpu_list
from shm_monitor.collectors.cgroup.scope import Scope
from shm_monitor.collectors.cpu import CpuCollector
from tests.support.host_trees import Tree, readings, sample

if TYPE_CHECKING:
    from pathlib import Path

TRAIN = "sys/fs/cgroup/jobs.slice/pod1/train"
POD = "sys/fs/cgroup/jobs.slice/pod1"


def cpu(tree: Tree, scope: str = "auto") -> CpuCollector:
    """Return a collector that has taken its first sample."""
    collector = CpuCollector(Scope.parse(scope), tree.roots, clock=tree.clock)
    sample(collector)
    return collector


def pass_second(tree: Tree, *, busy: tuple[int, int] = (0, 0), iowait: int = 0, steal: int = 0) -> None:
    """Let a second pass in /proc/stat: *busy* ticks of user time on core 0 and 1; the rest idle."""
    tree.clock.forward(1)
    rows = (tree.top / "proc/stat").read_text().splitlines()
    grown = {0: (sum(busy), 200), 1: (busy[0], 100), 2: (busy[1], 100)}
    for index, (used, whole) in grown.items():
        name, *words = rows[index].split()
        ticks = [int(word) for word in words]
        ticks[0] += used
        ticks[3] += whole - used
        if index < 2:  # the waiting and the theft are on core 0
            ticks[4] += iowait
            ticks[7] += steal
            ticks[3] -= iowait + steal
        rows[index] = " ".join([name, *map(str, ticks)])
    tree.write("proc/stat", "\n".join(rows) + "\n")


def use(tree: Tree, directory: str, seconds: float, *, periods: tuple[int, int] = (0, 0)) -> None:
    """Let a v2 cgroup use *seconds* of CPU; *periods* are the new ones and how many of them were throttled."""
    file = f"{directory}/cpu.stat"
    words = dict(line.split() for line in (tree.top / file).read_text().splitlines())
    words["usage_usec"] = str(int(words["usage_usec"]) + round(seconds * 1e6))
    words["nr_periods"] = str(int(words["nr_periods"]) + periods[0])
    words["nr_throttled"] = str(int(words["nr_throttled"]) + periods[1])
    tree.write(file, "".join(f"{key} {value}\n" for key, value in words.items()))


def test_the_first_sample_knows_counts_and_load_but_no_share(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    found = sample(CpuCollector(Scope.parse("auto"), tree.roots, clock=tree.clock))

    shares = ("cpu_percent", "host_cpu_percent", "throttled_percent", "iowait_percent", "steal_percent")
    assert {found[f"cpu.{field}"] for field in shares} == {"not_yet_sampled"}
    assert (found["cpu.count"], found["cpu.effective_count"]) == (2, 0.5)
    assert (found["cpu.load_1"], found["cpu.load_5"], found["cpu.load_15"]) == (0.64, 0.24, 0.12)


def test_without_a_quota_the_use_is_that_of_the_host(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = cpu(tree, "host")
    pass_second(tree, busy=(90, 30), iowait=4, steal=2)
    found = sample(collector)

    assert found["cpu.cpu_percent"] == found["cpu.host_cpu_percent"] == pytest.approx(100 * 122 / 200)
    assert found["cpu.iowait_percent"] == pytest.approx(2)
    assert found["cpu.steal_percent"] == pytest.approx(1)
    assert (found["cpu:0.core_percent"], found["cpu:1.core_percent"]) == (92, 30)
    assert found["cpu.effective_count"] == 2
    assert found["cpu.throttled_percent"] == "not_supported"


def test_a_busy_loop_in_half_a_core_is_100_percent_and_throttled(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = cpu(tree)
    pass_second(tree, busy=(50, 0))
    use(tree, TRAIN, 0.5, periods=(10, 9))
    use(tree, POD, 0.5, periods=(10, 0))

    assert readings(collector, "cpu_percent", "host_cpu_percent", "throttled_percent", "effective_count") == (
        pytest.approx(100),
        pytest.approx(25),
        90,
        0.5,
    )


def test_the_quota_of_a_parent_counts_when_its_other_children_use_it_up(tmp_path: Path) -> None:
    """train has 0.3 of its 0.5 left, pod1 0.05 of its 1.5."""
    tree = Tree("v2", tmp_path)
    collector = cpu(tree)
    pass_second(tree, busy=(75, 70))
    use(tree, TRAIN, 0.2, periods=(10, 0))
    use(tree, POD, 1.45, periods=(10, 4))

    assert readings(collector, "cpu_percent", "throttled_percent") == (pytest.approx(100 * 1.45 / 1.5), 40)


def test_a_host_with_nothing_left_counts_even_where_our_quota_has(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = cpu(tree)
    pass_second(tree, busy=(100, 100))
    use(tree, TRAIN, 0.1, periods=(10, 0))

    assert readings(collector, "cpu_percent") == (100,)


def test_affinity_restricts_what_counts_to_our_cores(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = cpu(tree, "pid:77")
    pass_second(tree, busy=(100, 10))

    assert readings(collector, "cpu_percent", "host_cpu_percent", "count", "effective_count") == (10, 55, 2, 1)


@pytest.mark.parametrize(("tree_name", "scope"), [("v2", "/jobs.slice/pod2"), ("hybrid", "/jobs")])
def test_the_cpuset_of_a_watched_path_restricts_too(tmp_path: Path, tree_name: str, scope: str) -> None:
    collector = cpu(Tree(tree_name, tmp_path), scope)

    assert readings(collector, "effective_count") == (1,)


def test_a_quota_that_is_changed_is_seen_at_the_next_sample(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = cpu(tree)
    tree.write(f"{TRAIN}/cpu.max", "100000 100000\n")
    pass_second(tree, busy=(50, 0))
    use(tree, TRAIN, 0.5)

    assert readings(collector, "cpu_percent", "effective_count") == (pytest.approx(50), 1)


def test_v1_pairs_the_quota_with_cpuacct(tmp_path: Path) -> None:
    tree = Tree("v1", tmp_path)
    collector = cpu(tree)
    base = "sys/fs/cgroup/cpu,cpuacct"
    pass_second(tree, busy=(100, 10))
    tree.write(f"{base}/cpuacct.usage", "31200000000\n")
    tree.write(f"{base}/cpu.stat", "nr_periods 110\nnr_throttled 45\nthrottled_time 1\n")

    assert readings(collector, "cpu_percent", "effective_count", "throttled_percent") == (
        pytest.approx(100 * 1.2 / 1.5),
        1.5,
        50,
    )


def test_v1_hierarchies_that_are_mounted_apart_are_paired_by_path(tmp_path: Path) -> None:
    tree = Tree("hybrid", tmp_path)
    collector = cpu(tree)
    pass_second(tree, busy=(20, 10))
    tree.write("sys/fs/cgroup/cpuacct/jobs/train/cpuacct.usage", "30250000000\n")

    assert readings(collector, "cpu_percent", "effective_count") == (pytest.approx(50), 0.5)


def test_v1_without_a_cpuacct_cgroup_of_that_path_sums_its_processes(tmp_path: Path) -> None:
    tree = Tree("hybrid", tmp_path)
    tree.replace("proc/self/cgroup", "cpuacct:/jobs/train", "cpuacct:/")
    line = "77 (a b) c) R 1 1 1 0 -1 0 0 0 0 0 {user} {system} 0 0 20 0 1 0 100 0 500\n"
    tree.write("sys/fs/cgroup/cpu/jobs/train/cgroup.procs", "77\n78\n")
    tree.write("proc/77/stat", line.format(user=1000, system=100))
    collector = cpu(tree)
    pass_second(tree, busy=(20, 10))
    tree.write("proc/77/stat", line.format(user=1020, system=105))

    assert readings(collector, "cpu_percent") == (pytest.approx(50),)


def test_a_cgroup_that_loses_its_quota_holds_back_nobody(tmp_path: Path) -> None:
    tree = Tree("v1", tmp_path)
    tree.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    collector = cpu(tree)
    pass_second(tree, busy=(40, 40))

    assert readings(collector, "cpu_percent", "effective_count", "throttled_percent") == (40, 2, 0)


def test_iowait_that_runs_backwards_is_no_negative_share(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = cpu(tree, "host")
    pass_second(tree, busy=(10, 10), iowait=-5)

    assert readings(collector, "iowait_percent") == (0,)


def test_a_core_that_goes_offline_is_unknown_and_no_longer_counted(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = cpu(tree, "host")
    pass_second(tree, busy=(10, 10))
    text = (tmp_path / "proc/stat").read_text()
    tree.write("proc/stat", "\n".join(line for line in text.splitlines() if not line.startswith("cpu1")))
    found = sample(collector)

    assert (found["cpu.count"], found["cpu:0.core_percent"], found["cpu:1.core_percent"]) == (1, 10, "not_supported")


def test_cpus_that_lxcfs_renumbers_all_count(tmp_path: Path) -> None:
    """/proc/stat lists cpu0 and cpu1, affinity names 1 and 5: both are busy for half of the time, not one for all."""
    tree = Tree("v2", tmp_path)
    tree.replace("proc/self/status", "Cpus_allowed_list:\t0-1", "Cpus_allowed_list:\t1,5")
    for directory in (POD, TRAIN):
        tree.write(f"{directory}/cpu.max", "max 100000\n")
    collector = cpu(tree)
    pass_second(tree, busy=(0, 100))

    assert readings(collector, "cpu_percent", "effective_count") == (50, 2)


def test_an_allowed_cpu_that_is_offline_does_not_count(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    tree.replace("proc/self/status", "Cpus_allowed_list:\t0-1", "Cpus_allowed_list:\t1,5")
    for directory in (POD, TRAIN):
        tree.write(f"{directory}/cpu.max", "max 100000\n")
    tree.write("sys/devices/system/cpu/offline", "2-7\n")
    collector = cpu(tree)
    pass_second(tree, busy=(0, 100))

    assert readings(collector, "cpu_percent", "effective_count") == (100, 1)


def test_where_proc_shows_processes_only_quotas_are_measured(tmp_path: Path) -> None:
    tree = Tree("v1", tmp_path)
    tree.remove("proc/stat")
    collector = cpu(tree)
    tree.clock.forward(1)
    found = sample(collector)

    assert (found["cpu.host_cpu_percent"], found["cpu.count"]) == ("not_supported", "not_supported")
    assert isinstance(found["cpu.cpu_percent"], float)


def test_ticks_that_went_backwards_are_unknown(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = cpu(tree, "host")
    tree.replace("proc/stat", "cpu  9194 100 2345 147832", "cpu  1 1 1 1")

    assert readings(collector, "host_cpu_percent") == ("error",)


@pytest.mark.parametrize(
    ("text", "cpus"), [(b"0-3,8\n", {0, 1, 2, 3, 8}), (b"5\n", {5}), (b"\n", None), (b"0,2-2\n", {0, 2})]
)
def test_a_list_of_cpus_is_read_as_cpuset_7_says(text: bytes, cpus: set[int] | None) -> None:
    assert cpu_list(text) == cpus
