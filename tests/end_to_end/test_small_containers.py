"""Containers of 96 to 256 MB with a worker that needs a good part of them: the sampler is never what is too much."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from shm_monitor.schema import Level
from tests.support.cgroups import Group
from tests.support.host_trees import is_root
from tests.support.load_cgroup import memory_group
from tests.support.surroundings import child_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not is_root(), reason="making cgroups needs root")

RUNS = 2
RUN_SECONDS = 4.0
# A worker that needs argv[1] MB, its interpreter included; it says what it is told from the first sample on.
WORKER = """
import mmap, sys, time
import shm_monitor as sm
def private_bytes():
    with open("/proc/self/smaps_rollup") as file:
        return 1024 * sum(int(line.split()[1]) for line in file if line.startswith("Private_"))
reader = sm.attach(timeout=60.0)
print(int(reader.level()), reader.snapshot().memory.usage_percent, flush=True)
block = mmap.mmap(-1, max((int(sys.argv[1]) << 20) - private_bytes(), 4096))
for place in range(0, len(block), 4096):
    block[place] = 1
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    time.sleep(0.2)
    print(int(reader.level()), reader.snapshot().memory.usage_percent, flush=True)
"""


class Told(NamedTuple):
    """What the worker was told, and the usage in percent of the container at that time."""

    level: Level
    usage_percent: float


def life(group: Group, need_mb: int, cache: Path, hz: float) -> tuple[int, list[Told]]:
    """Run ``shm-monitor run -- WORKER`` in *group* with a cold cache; return its status and what it was told."""
    enter = f'echo $$ > {group.path}/cgroup.procs && exec "$0" "$@"'
    run = [sys.executable, "-P", "-m", "shm_monitor", "run", "--name", group.name.strip("/")]
    settings = ["--set", f"check_interval={1 / hz:g}"]
    command = [
        "/bin/sh",
        "-c",
        enter,
        *run,
        *settings,
        "--",
        sys.executable,
        "-c",
        WORKER,
        str(need_mb),
        f"{RUN_SECONDS}",
    ]
    environ = child_environment(HOME=str(cache), NUMBA_CACHE_DIR=str(cache))
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=False)
    lines = [line.split() for line in done.stdout.splitlines()]
    return done.returncode, [Told(Level(int(level)), float(percent)) for level, percent in lines]


def kills_in(group: Group) -> int:
    """Return how many processes the kernel has killed in *group* for want of memory."""
    file = "memory.oom_control" if group.version == 1 else "memory.events"
    lines = [line.split() for line in (group.path / file).read_text().splitlines()]
    return int(next(fields[1] for fields in lines if fields[0] == "oom_kill"))


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """A home in which nothing was ever compiled, and still nothing is afterwards: there was no room."""
    yield tmp_path
    assert not list(tmp_path.rglob("*.nbi"))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("limit_mb", "need_mb"), [(96, 40), (128, 60), (256, 170)])
@pytest.mark.parametrize("hz", [1.0, 10.0])
def test_a_small_container_holds_the_worker_and_its_sampler(
    limit_mb: int, need_mb: int, hz: float, cache: Path
) -> None:
    """At 10 Hz it would compile where there was room."""
    highest = 0.0
    for _ in range(RUNS):
        with memory_group(limit_mb) as group:
            status, told = life(group, need_mb, cache, hz)
            assert kills_in(group) == 0
        assert status == 0
        assert len(told) > 10
        highest = max(highest, *(one.usage_percent for one in told))
        for one in told:
            assert one.level <= (
                Level.OK if one.usage_percent < 75 else Level.WARN if one.usage_percent < 85 else one.level
            )
    print(f"\n{limit_mb} MB, worker {need_mb} MB, {hz:g} Hz: no kill in {RUNS} runs, usage {highest:.0f} % at most")
