"""The question that a worker asks in its innermost loop, against what it would use instead."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import mmap
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import shm_monitor
from bench import budgets
from bench.measure import Rows, compare, nothing, run
from bench.results import Budget, Row
from bench.stage import SamplerProcess, published
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.schema import Level

Ask = Callable[[], object]


class Contender(NamedTuple):
    """One way to ask: how the table calls it, what gives the call for a sampler's name, and what is allowed.

    *waits* is true where another process answers.
    """

    case: str
    ready: Callable[[str], contextlib.AbstractContextManager[Ask]]
    budget: Budget | None = None
    waits: bool = False


@contextlib.contextmanager
def empty(name: str) -> Iterator[Ask]:
    yield lambda: False


@contextlib.contextmanager
def calm(name: str) -> Iterator[Ask]:
    with published(name), shm_monitor.attach(name) as reader:
        yield reader.should_prune


@contextlib.contextmanager
def watching_one(name: str) -> Iterator[Ask]:
    with published(name), shm_monitor.attach(name, watch=["memory"]) as reader:
        yield reader.should_prune


@contextlib.contextmanager
def watching_three(name: str) -> Iterator[Ask]:
    with published(name), shm_monitor.attach(name, watch=["memory", "cpu", "network"]) as reader:
        yield reader.should_prune


@contextlib.contextmanager
def watching_all(name: str) -> Iterator[Ask]:
    with published(name), shm_monitor.attach(name, watch=["memory", "cpu", "network", "gpu-memory:0"]) as reader:
        yield reader.should_prune


@contextlib.contextmanager
def pressed_three(name: str) -> Iterator[Ask]:
    with published(name, Level.PRUNE), shm_monitor.attach(name, watch=["memory", "cpu", "network"]) as reader:
        yield reader.should_prune


@contextlib.contextmanager
def pressed_fourth(name: str) -> Iterator[Ask]:
    levels = (Level.OK, Level.OK, Level.OK, Level.PRUNE)
    with published(name, *levels), shm_monitor.attach(name, watch=["memory", "cpu", "network"]) as reader:
        yield reader.should_prune


@contextlib.contextmanager
def level(name: str) -> Iterator[Ask]:
    with published(name, Level.PRUNE), shm_monitor.attach(name) as reader:
        yield reader.level


@contextlib.contextmanager
def shed_fraction(name: str) -> Iterator[Ask]:
    with published(name, Level.PRUNE), shm_monitor.attach(name) as reader:
        yield reader.shed_fraction


@contextlib.contextmanager
def reasons(name: str) -> Iterator[Ask]:
    with published(name, Level.PRUNE), shm_monitor.attach(name) as reader:
        yield reader.reasons


@contextlib.contextmanager
def pressed(name: str) -> Iterator[Ask]:
    with published(name, Level.PRUNE), shm_monitor.attach(name) as reader:
        yield reader.should_prune


@contextlib.contextmanager
def dead(name: str) -> Iterator[Ask]:
    with SamplerProcess(ResourceConfig(name=name)) as sampler, shm_monitor.attach(name) as reader:
        sampler.kill()
        sampler.end()
        yield reader.should_prune


@contextlib.contextmanager
def by_clock(name: str) -> Iterator[Ask]:
    with published(name, by_kernel=False), shm_monitor.attach(name) as reader:
        yield reader.should_prune


@contextlib.contextmanager
def raw_value(name: str) -> Iterator[Ask]:
    flag = RawValue("b", 0)
    yield lambda: flag.value != 0


@contextlib.contextmanager
def event(name: str) -> Iterator[Ask]:
    yield multiprocessing.get_context("spawn").Event().is_set


@contextlib.contextmanager
def manager_value(name: str) -> Iterator[Ask]:
    with multiprocessing.get_context("spawn").Manager() as manager:
        flag = manager.Value("b", 0)
        yield lambda: flag.value != 0


@contextlib.contextmanager
def posix_memory(name: str) -> Iterator[Ask]:
    posix_ipc = pytest.importorskip("posix_ipc", reason='pip install "shm-monitor[bench]" brings posix_ipc')
    memory = posix_ipc.SharedMemory(f"/{name}-peer", posix_ipc.O_CREX, size=mmap.PAGESIZE)
    try:
        with contextlib.closing(mmap.mmap(memory.fd, mmap.PAGESIZE)) as mapped:
            yield lambda: mapped[0] != 0
    finally:
        memory.close_fd()
        memory.unlink()


@contextlib.contextmanager
def posix_semaphore(name: str) -> Iterator[Ask]:
    posix_ipc = pytest.importorskip("posix_ipc", reason='pip install "shm-monitor[bench]" brings posix_ipc')
    semaphore = posix_ipc.Semaphore(f"/{name}-peer", posix_ipc.O_CREX)
    try:
        yield lambda: semaphore.value != 0
    finally:
        semaphore.unlink()
        semaphore.close()


@contextlib.contextmanager
def redis(name: str) -> Iterator[Ask]:
    server = shutil.which("redis-server")
    if server is None or importlib.util.find_spec("redis") is None:
        pytest.skip('not installed: redis-server (apt-get install redis-server), or pip install "shm-monitor[bench]"')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "socket")
        options = ("--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder)
        process = subprocess.Popen([server, *options], stdout=subprocess.DEVNULL)
        try:
            while not path.exists() and process.poll() is None:
                time.sleep(0.01)
            with importlib.import_module("redis").Redis(unix_socket_path=str(path)) as client:
                client.set("prune", 0)
                yield lambda: client.get("prune") != b"0"
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def virtual_memory(name: str) -> Iterator[Ask]:
    yield lambda: psutil.virtual_memory().percent > 90.0


CONTENDERS = (
    Contender("an empty Python function", empty),
    Contender("`should_prune()`, sampler alive and calm", calm, budgets.CALM),
    Contender("`should_prune()`, one watched limit, calm", watching_one, budgets.CALM),
    Contender("`should_prune()`, three of four limits, calm", watching_three, budgets.WATCHED),
    Contender("`should_prune()`, all four limits, calm", watching_all, budgets.WATCHED),
    Contender("`should_prune()`, pressed", pressed, budgets.PRESSED),
    Contender("`should_prune()`, three of four limits, pressed", pressed_three),
    Contender("`should_prune()`, three of four limits, calm, the fourth pressed", pressed_fourth),
    Contender("`should_prune()`, sampler dead", dead, budgets.PRESSED),
    Contender("`level()`, pressed", level, budgets.HOW_MUCH),
    Contender("`shed_fraction()`, pressed", shed_fraction, budgets.HOW_MUCH),
    Contender("`reasons()`, pressed", reasons, budgets.HOW_MUCH),
    Contender("`should_prune()`, no kernel mark: by the clock", by_clock),
    Contender("`multiprocessing.RawValue` (no death, no reasons)", raw_value),
    Contender("`posix_ipc.SharedMemory`, a byte of its mmap (no death, no reasons)", posix_memory),
    Contender("`posix_ipc.Semaphore.value`", posix_semaphore),
    Contender("`multiprocessing.Event.is_set()`", event),
    Contender("`multiprocessing.Manager().Value`", manager_value, waits=True),
    Contender("Redis `GET` over a unix socket", redis, waits=True),
    Contender("`psutil.virtual_memory()`", virtual_memory),
)


@pytest.mark.budget
@pytest.mark.benchmark(group="hot path")
@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda one: one.ready.__name__)
def bench_ask_whether_to_prune(benchmark: BenchmarkFixture, rows: Rows, name: str, contender: Contender) -> None:
    """What does one question cost a worker, against what it would use instead?"""
    with contender.ready(name) as ask:
        seen = compare(benchmark, ask, nothing, waits=contender.waits)
    rows.add(Row(contender.case, seen.seconds, "seconds", seen.ratio, "an empty function", contender.budget))


@pytest.mark.benchmark(group="hot path")
def bench_event_against_should_prune(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """How many times cheaper than an Event is it?"""
    with calm(name) as ask, event(name) as is_set:
        seen = compare(benchmark, is_set, ask)
    allowed = Budget(8.0, of_ratio=True, at_least=True)
    rows.add(Row("`multiprocessing.Event.is_set()`", seen.seconds, "seconds", seen.ratio, "`should_prune()`", allowed))


CALLS = 100_000
ASKING = f"""
import os, shm_monitor
ask = shm_monitor.attach().should_prune
os.write(1, b"begin")
for _ in range({CALLS}):
    ask()
os.write(1, b"end")
"""


@pytest.mark.benchmark(group="hot path")
def bench_system_calls(
    benchmark: BenchmarkFixture, rows: Rows, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many system calls do 100,000 questions make?"""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    monkeypatch.setenv("SHM_MONITOR_NAME", name)
    log = tmp_path / "calls"
    command = [strace, "-f", "-o", str(log), sys.executable, "-c", ASKING]
    with published(name):
        run(benchmark, lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
    between = log.read_text(encoding="utf-8").partition('"begin"')[2].partition('"end"')[0]
    calls = len(between.splitlines()) - 2  # the rest of the line that begins, and the start of the one that ends
    rows.add(Row(f"system calls of {CALLS:,} x `should_prune()`", calls, "count", budget=Budget(0)))
