"""What the package costs a worker process that attaches and asks: time to start and resident memory."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure import Rows, run
from bench.results import Budget, Row
from bench.stage import published

TURNS = 25
BARE = "pass"

# What else a worker may run: how the table calls it, and what it may add in time and in memory.
ADDED: dict[str, tuple[str, Budget | None, Budget | None]] = {
    "import shm_monitor; shm_monitor.attach()": ("`attach()`", Budget(20e-3, 2), Budget(3 * 2.0**20, 2)),
    "import shm_monitor; shm_monitor.attach().snapshot()": ("`attach().snapshot()`", None, None),
    "import psutil; psutil.virtual_memory()": ("`psutil.virtual_memory()`", None, None),
}

# Runs each code in a fresh interpreter, in turns, and prints [seconds, kilobytes] of each run. A process of its own,
# and a light one: a child inherits the ru_maxrss of whoever started it, and here numba is loaded. Source: wait4(2).
RUNNER = """
import json, os, posix, sys, time
python, turns, *codes = json.loads(sys.argv[1])
seen = [[] for code in codes]
for turn in range(turns):
    for place, code in enumerate(codes):
        began = time.perf_counter()
        pid = posix.posix_spawn(python, [python, "-c", code], os.environ)
        status, usage = os.wait4(pid, 0)[1:]
        assert status == 0, code
        seen[place].append((time.perf_counter() - began, usage.ru_maxrss))
print(json.dumps(seen))
"""


class Run(NamedTuple):
    """Medians over the runs of one code."""

    seconds: float
    rss_bytes: float


def run_each(turns: int, *codes: str) -> list[Run]:
    """Run each of *codes* *turns* times, one after the other, and return their medians."""
    order = json.dumps([sys.executable, turns, *codes])
    done = subprocess.run([sys.executable, "-I", "-S", "-c", RUNNER, order], check=True, capture_output=True)
    return [
        Run(statistics.median(seconds for seconds, _ in runs), statistics.median(kib for _, kib in runs) * 1024)
        for runs in json.loads(done.stdout)
    ]


@pytest.fixture
def _byte_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Byte code is written and read as for any user, whatever this shell says; and not into the source tree."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path))


@pytest.mark.benchmark(group="light worker")
@pytest.mark.usefixtures("_byte_code")
def bench_a_worker_that_attaches(
    benchmark: BenchmarkFixture, rows: Rows, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does attaching add to a bare Python process, start to end?"""
    monkeypatch.setenv("SHM_MONITOR_NAME", name)
    seen: list[Run] = []
    with published(name):
        run_each(1, BARE, *ADDED)  # writes the byte code
        run(benchmark, lambda: seen.extend(run_each(TURNS, BARE, *ADDED)))
    bare, *others = seen
    rows.add(Row("`python -c pass`: time", bare.seconds, "seconds"))
    for (case, seconds, _), one in zip(ADDED.values(), others, strict=True):
        rows.add(Row(f"{case}: time added", one.seconds - bare.seconds, "seconds", budget=seconds))
    rows.add(Row("`python -c pass`: peak RSS", bare.rss_bytes, "bytes"))
    for (case, _, size), one in zip(ADDED.values(), others, strict=True):
        rows.add(Row(f"{case}: peak RSS added", one.rss_bytes - bare.rss_bytes, "bytes", budget=size))
