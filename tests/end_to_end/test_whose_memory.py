"""A verdict is about the memory of who asks: real cgroups, samplers and workers of more than one of them."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.cgroups import MIB, Child, Group, child_in, new_group
from tests.support.children import PYTHON
from tests.support.host_trees import is_root
from tests.support.surroundings import child_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.processes, pytest.mark.slow]


@pytest.fixture
def groups() -> Iterator[tuple[Group, Group]]:
    """Make a cgroup of 2,000 MiB and one of 200."""
    if not is_root():
        pytest.skip("making cgroups needs root")
    with new_group("memory") as large, new_group("memory") as small:
        large.limit_memory(2000 * MIB)
        small.limit_memory(200 * MIB)
        yield large, small


def managed(child: Child, name: str) -> str:
    """Have *child* keep a manager of *name*; return the name that it really has."""
    return asked(child, f"m = sm.ResourceManager(sm.ResourceConfig(name={name!r}, check_interval=0.1)); say(m.name)")


def asked(child: Child, code: str) -> str:
    """Run *code*, that calls ``say`` once, and return what it says."""
    child.do("import shm_monitor as sm; said = []; say = lambda text: said.append(str(text))")
    child.do(code)
    return child.answer("said[0]")


def test_a_worker_of_another_cgroup_is_refused_unless_it_means_it(groups: tuple[Group, Group], name: str) -> None:
    large, small = groups
    with child_in(large) as owner, child_in(small) as worker:
        assert managed(owner, name) == name
        attempt = f"try: sm.attach({name!r})\nexcept sm.OtherMemoryError as error: say(error)"
        refusal = asked(worker, f"exec({attempt!r})")
        for part in (large.name, small.name, "2,097 MB", "210 MB", 'scope="any"', "shm-monitor run"):
            assert part in refusal
        calm = asked(
            worker, f"r = sm.attach({name!r}, required=False); say((r.should_prune(), r.explain().no_sampler))"
        )
        assert calm.startswith("(False, ")
        assert small.name in calm
        assert asked(worker, "say(r.status().state)") == "other-memory"
        watcher = asked(worker, f"r = sm.attach({name!r}, scope='any'); say((r.status().state, r.status().detail))")
        assert watcher.startswith("('live', ")
        assert small.name in watcher
        owner.do("m.close()")


def test_managers_of_one_name_in_two_cgroups_have_a_sampler_each(groups: tuple[Group, Group], name: str) -> None:
    large, small = groups
    with child_in(large) as one, child_in(small) as other:
        assert managed(one, name) == name
        assert managed(other, name) == f"{name}-{small.path.stat().st_ino}"
        assert asked(other, "say(sm.attach().name)") == f"{name}-{small.path.stat().st_ino}"
        assert asked(other, "say(m.snapshot().memory.capacity_bytes)") == str(200 * MIB)
        assert asked(one, "say(m.snapshot().memory.capacity_bytes)") == str(2000 * MIB)
        for child in (one, other):
            child.do("m.close()")


def test_a_sampler_of_another_cgroup_begins_another_history(groups: tuple[Group, Group], name: str) -> None:
    large, small = groups
    with child_in(large) as one:
        managed(one, name)
        with child_in(small) as other:
            one.kill()
            assert managed(other, name) == name
            assert asked(other, "say(m.status().restarts)") == "0"
            other.do("m.close()")


def test_a_process_that_moves_to_another_cgroup_is_told(groups: tuple[Group, Group], name: str) -> None:
    large, small = groups
    with child_in(large) as owner, child_in(large) as worker:
        managed(owner, name)
        assert asked(worker, f"r = sm.attach({name!r}, required=False); say(r.status().state)") == "live"
        (small.path / "cgroup.procs").write_text(str(worker.pid))
        worker.do("r._attachment._next_check = 0.0")
        assert small.name in asked(worker, "say(r.explain().no_sampler)")
        owner.do("m.close()")


CONTAINER = """
import os, sys, shm_monitor as sm
reader = sm.attach()
print(reader.name, reader.snapshot().memory.capacity_bytes, os.getppid(), flush=True)
"""


def test_a_container_measures_itself_beside_another_one_that_has_the_name(
    groups: tuple[Group, Group], name: str
) -> None:
    """`run -- CMD` as the entry point, in pid and cgroup namespaces of its own, with the /dev/shm of both."""
    large, small = groups
    with child_in(large) as other:
        managed(other, name)
        enter = f'echo $$ > {small.path}/cgroup.procs && exec unshare --pid --fork --mount-proc --cgroup "$@"'
        run = [*PYTHON, "-m", "shm_monitor", "run", "--name", name, "--", *PYTHON, "-c", CONTAINER]
        done = subprocess.run(
            ["/bin/sh", "-c", enter, "sh", *run], env=child_environment(), capture_output=True, text=True, check=False
        )
        if "unshare failed" in done.stderr:
            pytest.skip(f"no namespaces can be made here: {done.stderr}")

        assert done.stdout.split() == [f"{name}-{small.path.stat().st_ino}", str(200 * MIB), "1"], done.stderr
        other.do("m.close()")
