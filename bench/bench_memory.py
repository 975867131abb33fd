"""What the processes beside the sampler hold, and what the libraries take before any of our code runs."""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import psutil
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import shm_monitor
from bench import budgets
from bench.api_load import Connection, free_port, request
from bench.measure import Rows, run
from bench.results import Row
from bench.stage import here, private_bytes, wait4

SETTLE_SECONDS = 3.0
START_SECONDS = 60.0
LIBRARIES = ("pass", "import numpy", "import numpy, psutil, msgspec", "import llvmlite.binding", "import numba")
# In a bare interpreter: runs the code, then says what only this process has and nobody can drop.
HOLD = """{code}
with open("/proc/self/smaps_rollup") as file:
    print(next(line.split()[1] for line in file if line.startswith("Private_Dirty")))
"""


class Tree(NamedTuple):
    """Private memory of ``shm-monitor run`` itself, and of its API; 0 where it has none."""

    supervisor: int
    api: int


def tree_bytes(name: str, *options: str, port: int = 0) -> Tree:
    """Return what the processes of ``shm-monitor run`` hold once they have settled, and the API has answered."""
    command = [sys.executable, "-m", "shm_monitor", "run", "--name", name, "--no-view", *options]
    with subprocess.Popen(command, env=here(), stderr=subprocess.DEVNULL) as process:
        try:
            shm_monitor.attach(name, timeout=START_SECONDS).close()
            if port:
                ask_all(port, ("/resources/all", "/snapshot", "/resources/prune"))
            time.sleep(SETTLE_SECONDS)
            children = psutil.Process(process.pid).children()
            api = [private_bytes(child.pid) for child in children if "shm_monitor_api" in child.cmdline()]
            return Tree(private_bytes(process.pid), sum(api))
        finally:
            process.send_signal(signal.SIGTERM)
            wait4(process)


def ask_all(port: int, paths: Sequence[str]) -> None:
    """Ask the API on *port* for each of *paths*, once it listens."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            connection = Connection(port)
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    for path in paths:
        connection.ask(request(path))
    connection.socket.close()


@pytest.mark.budget
@pytest.mark.benchmark(group="memory")
def bench_run_alone(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """What do the processes hold that keep a sampler alive and serve it?"""
    seen = list[Tree]()
    run(benchmark, lambda: seen.append(tree_bytes(name, "--no-api")))
    rows.add(Row("`shm-monitor run --no-api`", seen[0].supervisor, "bytes", budget=budgets.SUPERVISOR))


@pytest.mark.budget
@pytest.mark.benchmark(group="memory")
def bench_run_with_api(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """What do the processes hold that keep a sampler alive and serve it?"""
    seen, port = list[Tree](), free_port()
    run(benchmark, lambda: seen.append(tree_bytes(name, "--bind", f"127.0.0.1:{port}", port=port)))
    both = seen[0].supervisor + seen[0].api
    rows.add(Row("`shm-monitor run`, with its API", both, "bytes", budget=budgets.SUPERVISOR_AND_API))
    rows.add(Row("of it the API", seen[0].api, "bytes"))


@pytest.mark.benchmark(group="memory")
def bench_libraries(benchmark: BenchmarkFixture, rows: Rows) -> None:
    """What do libraries hold before any of our code runs? Private memory of a bare interpreter after each line."""

    def measure() -> None:
        for code in LIBRARIES:
            command = [sys.executable, "-c", HOLD.format(code=code)]
            runs = [subprocess.run(command, env=here(), check=True, capture_output=True) for _ in range(3)]
            size = statistics.median(1024 * int(one.stdout) for one in runs)
            rows.add(Row(f"`{code}`", size, "bytes"))

    run(benchmark, measure)
