"""The question that a worker asks in its innermost loop, against what it would use instead."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.sharedctypes import RawValue
from pathlib import Path

import psutil
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import shm_monitor
from bench.measure import Budget, Rows, compare, nothing
from bench.stage import SamplerProcess, published
from shm_monitor.config import ResourceConfig
from shm_monitor.schema import Level

Ask = Callable[[], object]


@contextlib.contextmanager
def an_empty_function(name: str) -> Iterator[Ask]:
    yield lambda: False


@contextlib.contextmanager
def alive_and_calm(name: str) -> Iterator[Ask]:
    with published(name), shm_monitor.attach(name) as reader:
        yield reader.should_prune


@contextlib.contextmanager
def three_watched_limits(name: str) -> Iterator[Ask]:
    with published(name), shm_monitor.attach(name, watch=["memory", "cpu", "network"]) as reader:
        yield reader.should_prune


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
def by_the_clock(name: str) -> Iterator[Ask]:
    with published(name, by_kernel=False), shm_monitor.attach(name) as reader:
        yield reader.should_prune


@contextlib.contextmanager
def a_raw_value(name: str) -> Iterator[Ask]:
    flag = RawValue("b", 0)
    yield lambda: flag.value != 0


@contextlib.contextmanager
def an_event(name: str) -> Iterator[Ask]:
    yield multiprocessing.get_context("spawn").Event().is_set


@contextlib.contextmanager
def a_manager_value(name: str) -> Iterator[Ask]:
    with multiprocessing.get_context("spawn").Manager() as manager:
        flag = manager.Value("b", 0)
        yield lambda: flag.value != 0


@contextlib.contextmanager
def redis_over_a_unix_socket(name: str) -> Iterator[Ask]:
    server = shutil.which("redis-server")
    if server is None or importlib.util.find_spec("redis") is None:
        pytest.skip("redis-server or the package redis is not installed")
    from redis import Redis

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "redis.sock")
        options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder]
        process = subprocess.Popen([server, *options], stdout=subprocess.DEVNULL)
        client = Redis(unix_socket_path=str(path))
        try:
            deadline = time.monotonic() + 5.0
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            client.set("prune", 0)
            yield lambda: client.get("prune") != b"0"
        finally:
            client.close()
            process.terminate()
            process.wait()


@contextlib.contextmanager
def psutil_virtual_memory(name: str) -> Iterator[Ask]:
    yield lambda: psutil.virtual_memory().percent > 90.0


CONTENDERS = (
    an_empty_function,
    alive_and_calm,
    three_watched_limits,
    pressed,
    dead,
    by_the_clock,
    a_raw_value,
    an_event,
    a_manager_value,
    redis_over_a_unix_socket,
    psutil_virtual_memory,
)
CASES = {
    an_empty_function: "an empty Python function",
    alive_and_calm: "`should_prune()`: sampler alive, calm",
    three_watched_limits: "`should_prune()`: three watched limits, calm",
    pressed: "`should_prune()`: pressed",
    dead: "`should_prune()`: sampler dead, `on_stale=never`",
    by_the_clock: "`should_prune()`: only the clock can tell death",
    a_raw_value: "`RawValue`, set by whom?",
    an_event: "`multiprocessing.Event.is_set()`",
    a_manager_value: "`multiprocessing.Manager().Value`",
    redis_over_a_unix_socket: "Redis `GET` over a unix socket",
    psutil_virtual_memory: "`psutil.virtual_memory()`, memory alone",
}
BUDGETS = {alive_and_calm: Budget(2.2, 2, of_ratio=True)}


@pytest.mark.benchmark(group="hot path")
@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda one: one.__name__)
def bench_ask_whether_to_prune(
    benchmark: BenchmarkFixture,
    rows: Rows,
    name: str,
    contender: Callable[[str], contextlib.AbstractContextManager[Ask]],
) -> None:
    """What does one question cost a worker, against what it would use instead?"""
    with contender(name) as ask:
        seen = compare(benchmark, ask, nothing)
    rows.add(
        CASES[contender],
        seen.seconds,
        "seconds",
        ratio=seen.ratio,
        against="an empty function",
        budget=BUDGETS.get(contender),
    )


@pytest.mark.benchmark(group="hot path")
def bench_an_event_against_should_prune(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """How many questions fit into one `Event.is_set()`?"""
    event = multiprocessing.get_context("spawn").Event()
    with alive_and_calm(name) as ask:
        seen = compare(benchmark, event.is_set, ask)
    rows.add(
        "`multiprocessing.Event.is_set()`",
        seen.seconds,
        "seconds",
        ratio=seen.ratio,
        against="`should_prune()`",
        budget=Budget(8.0, 2, of_ratio=True, at_least=True),
    )


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
        benchmark.pedantic(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
    between = log.read_text(encoding="utf-8").partition('"begin"')[2].partition('"end"')[0]
    calls = len(between.splitlines()) - 2  # the rest of the line that begins, and the start of the one that ends
    rows.add(f"`should_prune()`, {CALLS:,} times", calls, "count", budget=Budget(0, 2))
