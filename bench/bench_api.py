"""What the REST API costs: against FastAPI itself, with many listeners, at a fixed rate, and beside Glances.

Everything runs on this machine's loopback interface, bounded in time. Server and client share its cores, so rates are
lower bounds; the ratios are of rounds that follow each other, alternating.
"""

from __future__ import annotations

import contextlib
import importlib.util
import selectors
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.api_load import (
    Connection,
    Server,
    api_server,
    constant_server,
    free_port,
    latencies,
    request,
    throughput,
)
from bench.measure import Budget, Rows
from bench.stage import SamplerProcess, memory_bytes
from shm_monitor.config import ResourceConfig

ROUNDS = 12
ROUND_SECONDS = 0.5
REQUESTS = 500
LISTENERS = 500
LISTEN_SECONDS = 10.0
RATE = 1000.0
RATE_SECONDS = 8.0


@pytest.fixture
def api(name: str) -> Iterator[Server]:
    """The API of a real sampler."""
    with SamplerProcess(ResourceConfig(name=name)), api_server(name) as server:
        yield server


def alternating(*rates: Callable[[], float]) -> list[list[float]]:
    """Return what *rates* saw in rounds that take turns, without the first, which warms up."""
    seen: list[list[float]] = [[] for _ in rates]
    for turn in range(ROUNDS + 1):
        for rate, found in zip(rates, seen, strict=True):
            value = rate()
            if turn:
                found.append(value)
    return seen


def rate_of(server: Server, data: bytes) -> Callable[[], float]:
    """Return what measures answers per second."""
    return lambda: throughput(server.port, data, seconds=ROUND_SECONDS)


def cpu_of(server: Server, data: bytes) -> Callable[[], float]:
    """Return what measures the server's CPU seconds per answer, one client asking after the other's answer."""

    def measure() -> float:
        connection = Connection(server.port)
        with contextlib.closing(connection.socket):
            before = server.cpu_seconds()
            for _ in range(REQUESTS):
                connection.ask(data)
            return (server.cpu_seconds() - before) / REQUESTS

    return measure


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median over the rounds of ours / theirs."""
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))


def tag_of(server: Server, path: str) -> str:
    """Return the ETag of *path* now."""
    connection = Connection(server.port)
    with contextlib.closing(connection.socket):
        head = connection.ask(request(path)).partition(b"\r\n\r\n")[0].decode()
    return next(line.split(": ", 1)[1] for line in head.split("\r\n") if line.lower().startswith("etag:"))


@pytest.mark.benchmark(group="api")
def bench_resources_all(benchmark: BenchmarkFixture, rows: Rows, api: Server) -> None:
    """What does `/resources/all` cost beside a FastAPI route that returns constant bytes?"""
    with constant_server() as constant:
        ours, theirs = request("/resources/all"), request("/constant")
        rates = benchmark.pedantic(lambda: alternating(rate_of(api, ours), rate_of(constant, theirs)))
        costs = alternating(cpu_of(api, ours), cpu_of(constant, theirs))
    against = "constant bytes"
    ratio, rate = median_ratio(*rates), statistics.median(rates[0])
    budget = Budget(0.9, 6, of_ratio=True, at_least=True)
    rows.add(
        "answers of `/resources/all`, 4 connections", rate, "per_second", ratio=ratio, against=against, budget=budget
    )
    cost = statistics.median(costs[0])
    rows.add("server CPU per answer", cost, "seconds", ratio=median_ratio(*costs), against=against)


@pytest.mark.benchmark(group="api")
@pytest.mark.parametrize("path", ["/resources/all", "/snapshot"])
def bench_not_modified(benchmark: BenchmarkFixture, rows: Rows, api: Server, path: str) -> None:
    """Is a 304 cheaper than the 200 it stands for?"""
    plain = request(path)
    connection = Connection(api.port)
    kept = [tag_of(api, path)]

    def not_modified() -> float:
        """Measure until the sample changes, then begin again with its tag."""
        while True:
            kept[0] = tag_of(api, path)
            value = cpu_of(api, request(path, If_None_Match=kept[0]))()
            if b" 304 " in connection.ask(request(path, If_None_Match=kept[0]))[:16]:
                return value

    with contextlib.closing(connection.socket):
        costs = benchmark.pedantic(lambda: alternating(not_modified, cpu_of(api, plain)))
    budget = Budget(1.0, 6, of_ratio=True)
    ratio, cost = median_ratio(*costs), statistics.median(costs[0])
    rows.add(f"server CPU per 304 of `{path}`", cost, "seconds", ratio=ratio, against="its 200", budget=budget)


@pytest.mark.benchmark(group="api")
def bench_latency(benchmark: BenchmarkFixture, rows: Rows, api: Server) -> None:
    """How long does an answer take at 1,000 requests a second?"""
    data = request("/resources/all")
    seen = benchmark.pedantic(lambda: latencies(api.port, data, per_second=RATE, seconds=RATE_SECONDS))
    cuts = statistics.quantiles(seen, n=100)
    rows.add("latency at 1,000/s, median", cuts[49], "seconds")
    rows.add("latency at 1,000/s, p99", cuts[98], "seconds")


@pytest.mark.benchmark(group="api")
def bench_listeners(benchmark: BenchmarkFixture, rows: Rows, api: Server) -> None:
    """What do 500 clients of `/events` cost at one sample a second?"""
    idle = memory_bytes(api.pid, "VmRSS")
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        ask = request("/events", Accept="text/event-stream")
        for _ in range(LISTENERS):
            connection = Connection(api.port).socket
            stack.callback(connection.close)
            connection.sendall(ask)
            selector.register(connection, selectors.EVENT_READ)
        listen(selector, 2.0)
        before, began = api.cpu_seconds(), time.perf_counter()
        count = benchmark.pedantic(lambda: listen(selector, LISTEN_SECONDS))
        cpu = (api.cpu_seconds() - before) / (time.perf_counter() - began)
        resident = memory_bytes(api.pid, "VmRSS")
    rows.add(f"CPU of the API with {LISTENERS} listeners", cpu * 100, "percent")
    rows.add(f"RSS of the API with {LISTENERS} listeners", resident, "bytes")
    rows.add("RSS per listener", (resident - idle) / LISTENERS, "bytes")
    rows.add("samples that each listener got per second", count / LISTENERS / LISTEN_SECONDS, "per_second")


def listen(selector: selectors.BaseSelector, seconds: float) -> int:
    """Read all connections for *seconds*; return how many samples came."""
    end, count = time.perf_counter() + seconds, 0
    while (left := end - time.perf_counter()) > 0:
        for key, _ in selector.select(left):
            connection = key.fileobj
            count += connection.recv(1 << 17).count(b"event: snapshot\n")  # type: ignore[union-attr]
    return count


@pytest.mark.benchmark(group="api")
def bench_beside_glances(benchmark: BenchmarkFixture, rows: Rows, api: Server) -> None:
    """How does `/resources/cpu` compare with the REST API of Glances on its `/api/4/cpu`?"""
    if importlib.util.find_spec("glances") is None:
        pytest.skip('glances is not installed (pip install "glances[web]")')
    port = free_port()
    command = [sys.executable, "-m", "glances", "-w", "--disable-webui", "-B", "127.0.0.1", "-p", str(port)]
    with Server([*command, "--disable-check-update"], port) as glances:
        ours, theirs = rate_of(api, request("/resources/cpu")), rate_of(glances, request("/api/4/cpu"))
        rates = benchmark.pedantic(lambda: alternating(ours, theirs))
    ratio, rate = median_ratio(*rates), statistics.median(rates[0])
    budget = Budget(5.0, 6, of_ratio=True, at_least=True)
    rows.add(
        "answers of `/resources/cpu`", rate, "per_second", ratio=ratio, against="Glances `/api/4/cpu`", budget=budget
    )
