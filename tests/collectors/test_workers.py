"""The process tree: real processes that are born, work, share memory and die."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from shm_monitor.collectors.files import Roots
from shm_monitor.collectors.workers import PSS_BUDGET_BYTES, ROWS, WorkersCollector
from tests.support.host_trees import Tree, sample
from tests.support.surroundings import UNMEASURED
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
LINE = "{pid} (a) b ({name}) {state} {parent} 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 {start} 0 {pages} 0\n"

HOLD = """
import sys, mmap
block = mmap.mmap(-1, int(sys.argv[1]) << 20)
for place in range(0, len(block), 4096):
    block[place] = 1
print("ready", flush=True)
sys.stdin.read()
"""
PARENT = """
import subprocess, sys
command = [sys.executable, "-c", sys.argv[2], sys.argv[1]]
child = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
child.kill()
child.wait()
"""


@contextlib.contextmanager
def running(*args: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run Python with *args* until the block ends; hand over the process and its first line."""
    command = [sys.executable, "-c", *args]
    environ = {**os.environ, **UNMEASURED}
    process = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=10)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def rows(found: dict[str, float | str]) -> dict[int, dict[str, float | str]]:
    """Return the rows of the table by pid."""
    fields = ("cpu_percent", "rss_bytes", "pss_bytes", "uss_bytes")
    table = {}
    for index in range(ROWS):
        pid = found[f"workers:{index}.pid"]
        if not isinstance(pid, str):
            table[int(pid)] = {field: found[f"workers:{index}.{field}"] for field in fields}
    return table


@pytest.mark.processes
def test_the_tree_is_the_owner_and_all_below_it_and_nobody_else() -> None:
    with running(HOLD, "1"), running(PARENT, "30", HOLD) as (parent, grandchild):
        found = sample(WorkersCollector(parent.pid, Roots()))

        assert found["workers.count"] == 2
        assert rows(found).keys() == {parent.pid, int(grandchild)}


@pytest.mark.processes
def test_the_largest_is_first_and_its_memory_is_what_it_holds() -> None:
    with running(PARENT, "60", HOLD) as (parent, grandchild):
        found = sample(WorkersCollector(parent.pid, Roots()))
        row = rows(found)[int(grandchild)]

        assert found["workers:0.pid"] == int(grandchild)
        for field in ("rss_bytes", "pss_bytes", "uss_bytes"):
            value = row[field]
            assert isinstance(value, float)
            assert 60 * MIB < value < 90 * MIB


@pytest.mark.processes
def test_memory_that_a_fork_shares_counts_once_in_pss_and_twice_in_rss() -> None:
    fork = (
        "import os, mmap; block = mmap.mmap(-1, 60 << 20)\n"
        "for place in range(0, len(block), 4096): block[place] = 1\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    for place in range(0, len(block), 4096): block[place]\n"
        "    os.write(1, b'ready\\n')\n"
        "import sys; sys.stdin.read()\n"
    )
    with running(fork) as (parent, _):
        found = sample(WorkersCollector(parent.pid, Roots()))
        rss, pss = found["workers.rss_bytes"], found["workers.pss_bytes"]
        assert isinstance(rss, float)
        assert isinstance(pss, float)

        assert rss > 120 * MIB
        assert 60 * MIB < pss < 100 * MIB


@pytest.mark.processes
def test_a_process_that_died_is_gone_in_the_next_sample() -> None:
    with running(PARENT, "1", HOLD) as (parent, grandchild):
        collector = WorkersCollector(parent.pid, Roots())
        assert sample(collector)["workers.count"] == 2
        os.kill(int(grandchild), signal.SIGKILL)
        wait_until(lambda: "\nState:\tZ" in read_status(grandchild))

        found = sample(collector)
        assert found["workers.count"] == 1
        assert rows(found).keys() == {parent.pid}


def read_status(pid: str) -> str:
    from pathlib import Path

    return Path("/proc", pid, "status").read_text()


@pytest.mark.processes
def test_a_process_that_is_born_later_is_found() -> None:
    collector = WorkersCollector(os.getpid(), Roots())
    before = sample(collector)["workers.count"]
    with running(HOLD, "1") as (child, _):
        found = sample(collector)

        assert found["workers.count"] == before + 1  # type: ignore[operator]
        assert child.pid in rows(found)


@pytest.mark.processes
def test_a_busy_worker_reads_as_the_cpu_time_it_used() -> None:
    busy = "print('ready', flush=True)\nimport threading, sys\nthreading.Thread(target=sys.stdin.read).start()\n"
    busy += "while threading.active_count() > 1: pass\n"
    with running(busy) as (child, _):
        collector = WorkersCollector(child.pid, Roots())
        before_first = clocks(child.pid)
        first = sample(collector)
        after_first = clocks(child.pid)
        time.sleep(0.7)
        before_second = clocks(child.pid)
        found = sample(collector)
        after_second = clocks(child.pid)

        # The tests may be held up at any place, so the sample lies between the least and the most that is possible.
        least = percent(after_first, before_second, over=(before_first, after_second))
        most = percent(before_first, after_second, over=(after_first, before_second))
        percent_found = found["workers.cpu_percent"]
        assert first["workers.cpu_percent"] == "not_yet_sampled"
        assert isinstance(percent_found, float)
        assert percent_found > 0
        assert least - 5 <= percent_found <= most + 5, "in ticks of 10 ms"


Clocks = tuple[float, float]


def clocks(pid: int) -> Clocks:
    """Return the CPU time of a process and the time, s: the clock id of clock_getcpuclockid(3) is exact."""
    return time.clock_gettime((~pid << 3) | 2), time.monotonic()


def percent(begin: Clocks, end: Clocks, *, over: tuple[Clocks, Clocks]) -> float:
    """Return the CPU time from *begin* to *end* in percent of the time *over*."""
    return 100 * (end[0] - begin[0]) / (over[1][1] - over[0][1])


@pytest.mark.processes
def test_an_owner_that_is_gone_has_no_tree() -> None:
    with running(HOLD, "1") as (child, _):
        pid = child.pid
    found = sample(WorkersCollector(pid, Roots()))

    assert set(found.values()) == {"not_supported"}


def write_process(tree: Tree, pid: int, parent: int, *, pages: int = 1, ticks: int = 0, start: int = 1) -> None:
    line = LINE.format(pid=pid, name="x", state="S", parent=parent, ticks=ticks, start=start, pages=pages)
    tree.write(f"proc/{pid}/stat", line)
    tree.write(f"proc/{pid}/smaps_rollup", "0-1 ---p 0 00:00 0 [rollup]\nRss: 4 kB\nPss:  4 kB\nPrivate_Clean: 0 kB\n")


def test_only_the_sixteen_largest_have_rows_and_the_totals_count_all(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    for pid in range(100, 140):
        write_process(tree, pid, 100 if pid > 100 else 1, pages=pid)
    found = sample(WorkersCollector(100, tree.roots, clock=tree.clock))

    assert found["workers.count"] == 40
    assert found["workers.rss_bytes"] == sum(range(100, 140)) * 4096
    assert list(rows(found)) == list(range(139, 139 - ROWS, -1))


def test_rows_without_a_process_are_disabled(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    write_process(tree, 100, 1)
    found = sample(WorkersCollector(100, tree.roots, clock=tree.clock))

    assert found["workers:0.pid"] == 100
    assert found["workers:1.pid"] == found["workers:15.rss_bytes"] == "disabled"


def test_the_shared_part_of_big_processes_is_not_looked_at(tmp_path: Path) -> None:
    """Walking the page tables of gigabytes costs milliseconds and holds their owner up: small ones first."""
    tree = Tree("v2", tmp_path)
    write_process(tree, 100, 1, pages=1)
    write_process(tree, 101, 100, pages=PSS_BUDGET_BYTES // 4096)
    found = sample(WorkersCollector(100, tree.roots, clock=tree.clock))

    assert found["workers:0.pid"] == 101
    assert (found["workers:0.pss_bytes"], found["workers:1.pss_bytes"]) == ("disabled", 4096)
    assert found["workers.pss_bytes"] == "disabled"


def test_a_pid_that_is_used_again_does_not_inherit_the_time_of_the_one_before(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    write_process(tree, 100, 1)
    write_process(tree, 101, 100, ticks=50)
    collector = WorkersCollector(100, tree.roots, clock=tree.clock)
    sample(collector)
    tree.clock.forward(1)
    write_process(tree, 101, 100, ticks=90, start=2)

    assert rows(sample(collector))[101]["cpu_percent"] == "not_yet_sampled"


def test_a_stranger_whose_pid_is_used_again_by_a_worker_is_found_within_half_a_minute(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    write_process(tree, 1, 0)
    write_process(tree, 100, 1)
    write_process(tree, 101, 1)
    collector = WorkersCollector(100, tree.roots, clock=tree.clock)
    assert sample(collector)["workers.count"] == 1
    write_process(tree, 101, 100, start=2)

    assert [sample(collector)["workers.count"] for _ in range(16)][-1] == 2


def test_a_process_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    write_process(tree, 100, 1)
    for pid, text in ((101, "garbage"), (102, ""), (103, "103 (x) S 100")):
        tree.write(f"proc/{pid}/stat", text)

    assert sample(WorkersCollector(100, tree.roots, clock=tree.clock))["workers.count"] == 1
