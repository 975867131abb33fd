"""Where a process sits: every kind of mount and namespace, from recorded trees."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from shm_monitor.collectors.cgroup.scope import Cgroups, Scope
from shm_monitor.errors import ConfigError
from tests.support.host_trees import Tree

if TYPE_CHECKING:
    from pathlib import Path


def names(tree: Tree, controller: str, scope: str = "auto") -> list[str]:
    return [directory.name for directory in Cgroups(Scope.parse(scope), tree.roots).of(controller)]


def test_v2_shows_every_level_from_the_root_to_our_own(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)

    assert names(tree, "memory") == ["/", "/jobs.slice", "/jobs.slice/pod1", "/jobs.slice/pod1/train"]


def test_v1_in_a_container_shows_the_one_cgroup_that_is_mounted(tmp_path: Path) -> None:
    tree = Tree("v1", tmp_path)
    (memory,) = Cgroups(Scope.parse("auto"), tree.roots).of("memory")

    assert (memory.version, memory.name) == (1, "/docker/4f1")
    assert memory.path == tmp_path / "sys/fs/cgroup/memory"


def test_v1_controllers_that_share_a_mount_are_found_by_each_name(tmp_path: Path) -> None:
    tree = Tree("v1", tmp_path)

    assert names(tree, "cpu") == names(tree, "cpuacct") == ["/docker/4f1"]


def test_hybrid_takes_v1_where_it_has_the_controller_and_leaves_out_its_root(tmp_path: Path) -> None:
    tree = Tree("hybrid", tmp_path)

    assert names(tree, "memory") == ["/jobs", "/jobs/train"]
    assert names(tree, "cpuset") == ["/", "/jobs"]
    assert names(tree, "") == ["/", "/jobs", "/jobs/train"]


def test_a_controller_that_v1_does_not_have_is_looked_for_in_v2(tmp_path: Path) -> None:
    tree = Tree("hybrid", tmp_path)
    tree.replace("proc/self/cgroup", "4:memory:/jobs/train\n", "")

    directories = Cgroups(Scope.parse("auto"), tree.roots).of("memory")

    assert {directory.version for directory in directories} == {2}


def test_in_a_cgroup_namespace_our_own_cgroup_is_the_root(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    tree.write("proc/self/cgroup", "0::/\n")

    (own,) = Cgroups(Scope.parse("auto"), tree.roots).of("memory")

    assert (own.name, own.path) == ("/", tmp_path / "sys/fs/cgroup")


def test_a_mount_from_outside_our_namespace_is_searched_for_our_process(tmp_path: Path) -> None:
    """unshare -C without a new mount: the path is /, the root of the mount /../.. and the names between are hidden."""
    tree = Tree("v2", tmp_path)
    tree.write("proc/self/cgroup", "0::/\n")
    tree.replace("proc/self/mountinfo", " / /sys/fs/cgroup", " /../../.. /sys/fs/cgroup")
    tree.write("sys/fs/cgroup/jobs.slice/pod1/train/cgroup.procs", f"1\n{os.getpid()}\n")

    directories = Cgroups(Scope.parse("auto"), tree.roots).of("memory")

    assert [directory.name for directory in directories] == ["/../../..", "/../..", "/..", "/"]
    assert directories[-1].path == tmp_path / "sys/fs/cgroup/jobs.slice/pod1/train"


def test_a_part_of_the_hierarchy_that_is_bound_into_the_container_is_resolved_by_its_root(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    tree.replace("proc/self/mountinfo", " / /sys/fs/cgroup", " /jobs.slice /sys/fs/cgroup/jobs.slice")

    assert names(tree, "memory") == ["/jobs.slice", "/jobs.slice/pod1", "/jobs.slice/pod1/train"]


def test_of_two_mounts_the_one_that_shows_more_levels_is_used(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    bound = "50 23 0:28 /jobs.slice/pod1 /mnt/bound rw - cgroup2 cgroup2 rw\n"
    tree.write("proc/self/mountinfo", bound + (tmp_path / "proc/self/mountinfo").read_text())

    assert names(tree, "memory")[0] == "/"


def test_a_path_that_no_mount_shows_falls_back_to_what_is_mounted(tmp_path: Path) -> None:
    tree = Tree("v1", tmp_path)
    tree.write("proc/self/cgroup", "5:memory:/system.slice/elsewhere\n")

    assert names(tree, "memory") == ["/"]


def test_a_mount_point_with_a_space_is_unescaped(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    (tmp_path / "sys/fs/cgroup").rename(tmp_path / "sys/fs/c group")
    tree.replace("proc/self/mountinfo", "/sys/fs/cgroup", r"/sys/fs/c\040group")

    assert names(tree, "memory")[-1] == "/jobs.slice/pod1/train"


@pytest.mark.parametrize("file", ["proc/self/cgroup", "proc/self/mountinfo"])
@pytest.mark.parametrize("text", [None, "", "garbage\n\n::\n - - -\n1 2 3 - cgroup2\n"])
def test_without_a_readable_membership_or_mount_there_are_no_levels(
    tmp_path: Path, file: str, text: str | None
) -> None:
    tree = Tree("v2", tmp_path)
    if text is None:
        tree.remove(file)
    else:
        tree.write(file, text)

    assert names(tree, "memory") == []


def test_the_scope_host_has_no_levels(tmp_path: Path) -> None:
    assert names(Tree("v2", tmp_path), "memory", "host") == []


def test_the_scope_pid_shows_the_levels_of_that_process(tmp_path: Path) -> None:
    assert names(Tree("v2", tmp_path), "memory", "pid:77") == ["/", "/jobs.slice", "/jobs.slice/pod2"]


@pytest.mark.parametrize("path", ["/jobs.slice/pod2", "/jobs.slice/pod2/", "{sys}/fs/cgroup/jobs.slice/pod2"])
def test_the_scope_path_is_the_path_in_the_hierarchy_or_the_directory(tmp_path: Path, path: str) -> None:
    tree = Tree("v2", tmp_path)

    assert names(tree, "memory", path.format(sys=tree.roots.sys))[-1] == "/jobs.slice/pod2"


@pytest.mark.parametrize("scope", ["", "Auto", "pid:", "pid:0", "pid:-1", "pid:x", "relative/path", "pid:1:2"])
def test_a_scope_that_is_none_is_refused(scope: str) -> None:
    with pytest.raises(ConfigError, match="scope"):
        Scope.parse(scope)


@pytest.mark.parametrize("scope", ["/no/such", "/../sibling", "pid:4242"])
def test_a_scope_that_cannot_be_seen_is_refused(tmp_path: Path, scope: str) -> None:
    with pytest.raises(ConfigError, match="mounted here"):
        Cgroups(Scope.parse(scope), Tree("v2", tmp_path).roots)


def test_a_sidecar_that_sees_only_its_own_cgroups_says_so(tmp_path: Path) -> None:
    """A shared pid namespace shows the process, its cgroup lies beside ours and is not mounted."""
    tree = Tree("v2", tmp_path)
    tree.write("proc/77/cgroup", "0::/../other\n")

    with pytest.raises(ConfigError, match="pid:77"):
        Cgroups(Scope.parse("pid:77"), tree.roots)


def test_being_moved_to_another_cgroup_is_noticed_once(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    cgroups = Cgroups(Scope.parse("auto"), tree.roots)
    tree.write("proc/self/cgroup", "0::/jobs.slice/pod2\n")

    assert (cgroups.changed(), cgroups.changed()) == (True, False)
    assert cgroups.of("memory")[-1].name == "/jobs.slice/pod2"


def test_a_process_that_ended_keeps_the_cgroup_it_had(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    cgroups = Cgroups(Scope.parse("pid:77"), tree.roots)
    tree.remove("proc/77/cgroup")

    assert not cgroups.changed()
    assert cgroups.of("memory")[-1].name == "/jobs.slice/pod2"
