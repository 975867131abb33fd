"""What the package costs a worker process that attaches and asks: time to start and resident memory."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure import Budget, Rows
from bench.stage import published

PAIRS = 25
BARE = "pass"
ATTACHED = "import shm_monitor; shm_monitor.attach()"
ASKED = "import shm_monitor; shm_monitor.attach().snapshot()"
PSUTIL = "import psutil; psutil.virtual_memory()"

# Runs each code in a fresh interpreter, in turns, and prints [seconds, kilobytes] of each run. A process of its own,
# and a light one: a child inherits the ru_maxrss of whoever started it, and this one has numba loaded. Source: wait4(2).
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


@pytest.mark.benchmark(group="light worker")
def bench_a_worker_that_attaches(
    benchmark: BenchmarkFixture, rows: Rows, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does attaching add to a bare Python process, start to end?"""
    monkeypatch.setenv("SHM_MONITOR_NAME", name)
    codes = (BARE, ATTACHED, ASKED, PSUTIL)
    with published(name):
        run_each(1, *codes)  # writes the byte code
        bare, attached, asked, with_psutil = benchmark.pedantic(run_each, (PAIRS, *codes))
    rows.add("`python -c pass`, time", bare.seconds, "seconds")
    rows.add("added by `attach()`, time", attached.seconds - bare.seconds, "seconds", budget=Budget(20e-3, 2))
    rows.add("added by `attach().snapshot()`, time", asked.seconds - bare.seconds, "seconds")
    rows.add("added by `psutil.virtual_memory()`, time", with_psutil.seconds - bare.seconds, "seconds")
    rows.add("`python -c pass`, peak RSS", bare.rss_bytes, "bytes")
    rows.add("added by `attach()`, peak RSS", attached.rss_bytes - bare.rss_bytes, "bytes", budget=Budget(3e6, 2))
    rows.add("added by `attach().snapshot()`, peak RSS", asked.rss_bytes - bare.rss_bytes, "bytes")
    rows.add("added by `psutil.virtual_memory()`, peak RSS", with_psutil.rss_bytes - bare.rss_bytes, "bytes")
