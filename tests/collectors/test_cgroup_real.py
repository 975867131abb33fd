"""Real cgroups, made by the test and removed by it: what a process may really use, on the kernel of this host."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shm_monitor.collectors.cgroup.scope import Scope
from shm_monitor.collectors.cpu import CpuCollector
from shm_monitor.collectors.files import Roots
from shm_monitor.collectors.host_memory import Meminfo
from shm_monitor.collectors.memory import MemoryCollector
from tests.support.cgroups import MIB, Child, Group, child_in, new_group, remove, top_of
from tests.support.host_trees import is_root, readings, sample
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.processes, pytest.mark.skipif(not is_root(), reason="making cgroups needs root")]


@pytest.fixture
def group() -> Iterator[Group]:
    with new_group("memory") as made:
        made.limit_memory(256 * MIB)
        yield made


def memory_of(child: Child) -> MemoryCollector:
    return MemoryCollector(Scope.parse(f"pid:{child.pid}"), Roots())


def number(collector: MemoryCollector | CpuCollector, field: str) -> float:
    (value,) = readings(collector, field)
    assert isinstance(value, float), (field, value)
    return value


@pytest.mark.parametrize("namespace", [False, True], ids=["plain", "in a cgroup namespace"])
def test_a_process_in_a_cgroup_sees_the_limit_of_the_cgroup_not_the_host(group: Group, *, namespace: bool) -> None:
    """In a namespace of its own the cgroup is called /, and the mount was made outside of it."""
    if namespace and shutil.which("unshare") is None:
        pytest.skip("unshare (util-linux) is not installed")
    code = (
        "from shm_monitor.collectors import discover; import numpy as np\n"
        "memory = next(each for each in discover() if each.name == 'memory')\n"
        "out = np.empty(len(memory.metrics)); memory.collect(out)\n"
        "print(int(out[1]), memory.facts['scopes'][int(out[4])])"
    )
    enter = f'echo $$ > {group.path}/cgroup.procs && exec {"unshare -C" if namespace else ""} "$0" "$@"'
    said = subprocess.check_output(["/bin/sh", "-c", enter, sys.executable, "-c", code], text=True)

    assert said.split() == [str(256 * MIB), "/" if namespace else group.name]


@pytest.mark.parametrize("odd", ["\x0c", "\r", "\x1c", "\x85", "\u2028"], ids=ascii)
def test_a_cgroup_may_have_what_unicode_calls_the_end_of_a_line_in_its_name(odd: str) -> None:
    """Only a newline ends a line of the kernel; anything else that str.splitlines knows lost the limit."""
    with new_group("memory", f"shm-monitor-{odd}-{uuid.uuid4().hex[:8]}") as group:
        group.limit_memory(100 * MIB)
        with child_in(group) as child:
            memory = memory_of(child)

            assert number(memory, "capacity_bytes") == 100 * MIB
            assert group.name in memory.facts["scopes"]


def test_usage_follows_what_a_process_allocates_within_2_percent(group: Group) -> None:
    with child_in(group) as child:
        collector = memory_of(child)
        before = number(collector, "usage_bytes")
        child.do("hold(150)")

        assert number(collector, "usage_bytes") - before == pytest.approx(150 * MIB, rel=0.02)
        assert number(collector, "capacity_bytes") == 256 * MIB


def test_page_cache_is_no_use(group: Group, tmp_path: Path) -> None:
    """150 MB of a file read into the cgroup of 256 MB move usage by less than 10 MB."""
    file = tmp_path / "data"
    with file.open("wb") as stream:
        stream.write(os.urandom(MIB) * 150)
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with child_in(group) as child:
        collector = memory_of(child)
        before = number(collector, "usage_bytes")
        child.do(f"cache({str(file)!r})")
        child.do(f"cache({str(file)!r})")  # twice: the pages become active
        raw = "memory.usage_in_bytes" if group.version == 1 else "memory.current"

        assert int((group.path / raw).read_text()) > 140 * MIB
        assert abs(number(collector, "usage_bytes") - before) < 10 * MIB


def test_shared_memory_is_use(group: Group) -> None:
    file = Path("/dev/shm", f"{group.name[1:]}")
    try:
        with child_in(group) as child:
            collector = memory_of(child)
            before, shm_before = number(collector, "usage_bytes"), number(collector, "shm_used_bytes")
            child.do(f"shm({str(file)!r})")

            assert number(collector, "usage_bytes") - before == pytest.approx(50 * MIB, abs=2 * MIB)
            assert number(collector, "shm_used_bytes") - shm_before == pytest.approx(50 * MIB, abs=5 * MIB)
    finally:
        file.unlink(missing_ok=True)


@pytest.mark.slow
def test_names_that_were_looked_up_are_no_use(tmp_path: Path) -> None:
    """Absent files fill a cgroup with dentries, which the kernel drops at need: 280 MB of 400 are still to be had."""
    meminfo = Meminfo("/proc")
    if meminfo.read().fixed_kernel > 240 * MIB:
        pytest.skip("v1 does not say what is reclaimable, and this host's kernel holds too much to tell")
    with new_group("memory") as group:
        group.limit_memory(400 * MIB)
        with child_in(group) as child:
            memory = memory_of(child)
            child.do(f"for i in range(1_000_000): os.access(f'{tmp_path}/{{i:080}}', 0)")
            charged = "memory.usage_in_bytes" if group.version == 1 else "memory.current"

            assert int((group.path / charged).read_text()) > 300 * MIB
            assert number(memory, "usage_percent") < 80
            child.do("hold(150)")


def test_the_limit_of_a_parent_that_a_sibling_eats_is_seen(group: Group) -> None:
    ours, sibling = group.child("ours"), group.child("sibling")
    with child_in(ours) as child, child_in(sibling) as other:
        collector = memory_of(child)
        other.do("hold(180)")
        found = sample(collector)

        assert found["memory.capacity_bytes"] == 256 * MIB
        usage = found["memory.usage_bytes"]
        assert isinstance(usage, float)
        assert usage > 180 * MIB
        assert collector.facts["scopes"][int(number(collector, "scope"))] == group.name


def test_doubling_the_limit_is_seen_at_the_next_sample(group: Group) -> None:
    with child_in(group) as child:
        collector = memory_of(child)
        assert number(collector, "capacity_bytes") == 256 * MIB
        group.limit_memory(512 * MIB)

        assert number(collector, "capacity_bytes") == 512 * MIB


def test_a_cgroup_can_be_watched_by_its_path(group: Group) -> None:
    collector = MemoryCollector(Scope.parse(group.name), Roots())

    assert number(collector, "capacity_bytes") == 256 * MIB


def test_running_out_of_memory_is_counted(group: Group) -> None:
    group.limit_memory(64 * MIB)
    collector = MemoryCollector(Scope.parse(group.name), Roots())
    before = readings(collector, "reclaim_events_count", "oom_events_count")
    with child_in(group) as child, pytest.raises((AssertionError, BrokenPipeError)):
        child.do("hold(200)")
    wait_until(lambda: number(collector, "oom_events_count") > 0)

    assert before == (0, 0)
    assert number(collector, "reclaim_events_count") > 0


def test_a_cgroup_that_is_removed_while_watched_is_unknown(group: Group) -> None:
    inner = group.child("inner")
    collector = MemoryCollector(Scope.parse(inner.name), Roots())
    assert number(collector, "capacity_bytes") == 256 * MIB
    remove(inner.path)

    assert readings(collector, "usage_bytes", "capacity_bytes") == ("not_supported", "not_supported")
    assert number(collector, "host_total_bytes") > 0


@contextlib.contextmanager
def half_a_core(*, with_accounting: bool) -> Iterator[Child]:
    """Run a child with a quota of half a core; with its own cpuacct cgroup, as everybody makes them, or without."""
    with contextlib.ExitStack() as stack:
        groups = [stack.enter_context(new_group("cpu"))]
        groups[0].limit_cpu(0.5)
        apart = groups[0].version == 1 and top_of("cpuacct") != top_of("cpu")
        if apart and with_accounting:
            groups.append(stack.enter_context(new_group("cpuacct", groups[0].name[1:])))
        yield stack.enter_context(child_in(*groups))


@pytest.mark.parametrize("with_accounting", [True, False])
def test_a_busy_loop_in_half_a_core_is_100_percent_and_throttled(*, with_accounting: bool) -> None:
    with half_a_core(with_accounting=with_accounting) as child:
        collector = CpuCollector(Scope.parse(f"pid:{child.pid}"), Roots())
        sample(collector)
        child.do("spin()")

        def reads_100_percent() -> bool:
            time.sleep(0.5)
            found = sample(collector)
            assert found["cpu.effective_count"] == 0.5
            share, throttled = found["cpu.cpu_percent"], found["cpu.throttled_percent"]
            assert isinstance(share, float)
            assert isinstance(throttled, float)
            return share > 97 and throttled > 50

        wait_until(reads_100_percent)


def test_host_percent_stays_what_it_is_under_a_quota() -> None:
    with half_a_core(with_accounting=True) as child:
        collector = CpuCollector(Scope.parse(f"pid:{child.pid}"), Roots())
        child.do("spin()")
        times = [host_ticks()]
        sample(collector)
        times.append(host_ticks())
        time.sleep(1)
        times.append(host_ticks())
        host = number(collector, "host_cpu_percent")
        times.append(host_ticks())

        # The tests may be held up at any place, so the sample lies between the least and the most that is possible.
        (least_busy, least_whole), (most_busy, most_whole) = between(*times[1:3]), between(*times[::3])
        assert 100 * least_busy / most_whole - 3 <= host <= 100 * most_busy / least_whole + 3


def between(then: tuple[int, int], now: tuple[int, int]) -> tuple[int, int]:
    """Return busy and all ticks from *then* to *now*."""
    return now[0] - then[0], now[1] - then[1]


def host_ticks() -> tuple[int, int]:
    """Return busy and all ticks of the host. Source: proc_stat(5)."""
    words = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(words) - words[3] - words[4], sum(words)
