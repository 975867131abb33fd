"""Why one sampler: what a fleet of workers costs that each watch the machine, and that each read one sampler."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure import Rows, run
from bench.results import Row, Unit
from bench.stage import SamplerProcess, wait4
from shm_monitor.config.resource import ResourceConfig

WORKERS = 16
SECONDS = 8.0
INTERVAL_SECONDS = 0.1

# Says when it is ready, then asks ten times a second from the time on that it is told; prints the CPU used meanwhile.
ASK_ON_TIME = """
import time
{prepare}
ask()
print("ready", flush=True)
begin, seconds, interval = map(float, input().split())
time.sleep(max(begin - time.monotonic(), 0))
used, turn = time.process_time(), 0
while turn * interval < seconds:
    ask()
    turn += 1
    time.sleep(max(begin + turn * interval - time.monotonic(), 0))
print(time.process_time() - used)
"""
POLLS_PSUTIL = """
import psutil
def ask():
    return psutil.cpu_percent(), psutil.virtual_memory().percent, psutil.net_io_counters()
"""
ASKS = """
import shm_monitor
ask = shm_monitor.attach().should_prune
"""
READS = """
import shm_monitor
ask = shm_monitor.attach().snapshot
"""


class Fleet(NamedTuple):
    """CPU of a fleet: while it asks, in percent of one core, and from the starts to the ends, in seconds."""

    percent: float
    seconds: float


def run_workers(prepare: str) -> Fleet:
    """Run the workers, all at once, and return what they used."""
    command = [sys.executable, "-c", ASK_ON_TIME.format(prepare=prepare)]
    asking = seconds = 0.0
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            for _ in range(WORKERS)
        ]
        for worker in workers:
            assert line_of(worker) == b"ready\n"
        begin = time.monotonic() + 0.5
        for worker in workers:
            tell(worker, f"{begin} {SECONDS} {INTERVAL_SECONDS}\n")
        for worker in workers:
            asking += float(line_of(worker))
            usage = wait4(worker)
            seconds += usage.ru_utime + usage.ru_stime
    return Fleet(100 * asking / SECONDS, seconds)


def line_of(worker: subprocess.Popen[bytes]) -> bytes:
    assert worker.stdout is not None
    return worker.stdout.readline()


def tell(worker: subprocess.Popen[bytes], line: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(line.encode())
    worker.stdin.flush()


def run_readers(name: str, prepare: str) -> Fleet:
    """Run one sampler and the workers that read it, and return what they used together."""
    sampler = SamplerProcess(ResourceConfig(name=name, check_interval=INTERVAL_SECONDS))
    began, before = time.monotonic(), sampler.cpu_seconds()
    readers = run_workers(prepare)
    share = 100 * (sampler.cpu_seconds() - before) / (time.monotonic() - began)
    usage = sampler.end()
    return Fleet(readers.percent + share, readers.seconds + usage.ru_utime + usage.ru_stime)


@pytest.mark.benchmark(group="fleet")
def bench_sixteen_workers(benchmark: BenchmarkFixture, rows: Rows, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What do 16 workers cost that look ten times a second: each with psutil, or all at one sampler?"""
    monkeypatch.setenv("SHM_MONITOR_NAME", name)
    fleets: list[Fleet] = []

    def run_all() -> None:
        fleets.extend([run_workers(POLLS_PSUTIL), run_readers(name, ASKS), run_readers(name, READS)])

    run(benchmark, run_all)
    polling, *reading = fleets
    cases = ("`should_prune()` and one sampler", "`snapshot()` and one sampler")
    titles: dict[Unit, str] = {"percent": "of one core", "seconds": f"CPU from start to end of {SECONDS:.0f} s"}
    for unit, title in titles.items():
        base = getattr(polling, unit)
        rows.add(Row(f"psutil (CPU, memory, network): {title}", base, unit))
        for case, fleet in zip(cases, reading, strict=True):
            rows.add(Row(f"{case}: {title}", getattr(fleet, unit), unit, getattr(fleet, unit) / base, "psutil"))
