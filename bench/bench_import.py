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

from bench import budgets
from bench.measure import Rows, run
from bench.results import Budget, Row
from bench.stage import published

TURNS = 25
PEAK_RUNS = 5
BARE = "pass"

# What else a worker may run: how the table calls it, and what it may add in CPU and in memory.
ADDED: dict[str, tuple[str, Budget | None, Budget | None]] = {
    "import shm_monitor; shm_monitor.attach()": ("`attach()`", budgets.ATTACH, Budget(3 * 2.0**20)),
    "import shm_monitor; shm_monitor.attach().snapshot()": ("`attach().snapshot()`", None, None),
    "import psutil; psutil.virtual_memory()": ("`psutil.virtual_memory()`", None, None),
}

# Runs each code in a fresh interpreter, in turns, and prints [seconds, CPU seconds] of each run. A process of its own,
# and a light one, so that starting is quick: a big one has more to copy. Source: wait4(2).
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
        seen[place].append((time.perf_counter() - began, usage.ru_utime + usage.ru_stime))
print(json.dumps(seen))
"""

# Not ru_maxrss: a child inherits that of whoever started it, and even a bare interpreter with json holds more.
TELL_PEAK = "\nwith open('/proc/self/status') as file: print(file.read())"


class Run(NamedTuple):
    """One run of one code, from start to end."""

    seconds: float
    cpu_seconds: float


def run_each(turns: int, *codes: str) -> list[list[Run]]:
    """Run each of *codes* *turns* times, one after the other; return the runs of each."""
    order = json.dumps([sys.executable, turns, *codes])
    done = subprocess.run([sys.executable, "-I", "-S", "-c", RUNNER, order], check=True, capture_output=True)
    return [[Run(*one) for one in runs] for runs in json.loads(done.stdout)]


def peak_rss_bytes(code: str) -> float:
    """Return the most memory that *code* had resident, the median of some runs."""
    return statistics.median(_peak_rss_bytes(code) for _ in range(PEAK_RUNS))


def _peak_rss_bytes(code: str) -> int:
    done = subprocess.run([sys.executable, "-c", code + TELL_PEAK], check=True, capture_output=True, text=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@pytest.fixture
def _byte_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Byte code is written and read as for any user, whatever this shell says; and not into the source tree."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path))


@pytest.mark.budget
@pytest.mark.benchmark(group="light worker")
@pytest.mark.usefixtures("_byte_code")
def bench_a_worker_that_attaches(
    benchmark: BenchmarkFixture, rows: Rows, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does attaching add to a bare Python process, start to end?"""
    monkeypatch.setenv("SHM_MONITOR_NAME", name)
    seen: list[list[Run]] = []
    with published(name):
        run_each(1, BARE, *ADDED)  # writes the byte code
        run(benchmark, lambda: seen.extend(run_each(TURNS, BARE, *ADDED)))
        bare_rss_bytes, *rss_bytes = map(peak_rss_bytes, (BARE, *ADDED))
    bare, *others = seen
    rows.add(Row("`python -c pass`: time", statistics.median(one.seconds for one in bare), "seconds"))
    for (case, allowed, _), runs in zip(ADDED.values(), others, strict=True):
        more = [
            (ours.seconds - its.seconds, ours.cpu_seconds - its.cpu_seconds)
            for ours, its in zip(runs, bare, strict=True)
        ]
        rows.add(Row(f"{case}: time added", statistics.median(seconds for seconds, _ in more), "seconds"))
        rows.add(Row(f"{case}: CPU added", statistics.median(cpu for _, cpu in more), "seconds", budget=allowed))
    rows.add(Row("`python -c pass`: peak RSS", bare_rss_bytes, "bytes"))
    for (case, _, size), peak in zip(ADDED.values(), rss_bytes, strict=True):
        rows.add(Row(f"{case}: peak RSS added", peak - bare_rss_bytes, "bytes", budget=size))
