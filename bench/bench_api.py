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
from bench.measure import Rows, run
from bench.results import Budget, Row
from bench.stage import SamplerProcess, memory_bytes
from shm_monitor.config.resource import ResourceConfig

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


def alternating(benchmark: BenchmarkFixture | None, *measures: Callable[[], float]) -> list[list[float]]:
    """Return what *measures* saw in rounds that take turns, after one that warms up; *benchmark* times the rounds."""
    seen: list[list[float]] = [[] for _ in measures]

    def turn() -> None:
        for measure, found in zip(measures, seen, strict=True):
            found.append(measure())

    turn()
    if benchmark is None:
        for _ in range(ROUNDS):
            turn()
    else:
        run(benchmark, turn, rounds=ROUNDS)
    return [found[1:] for found in seen]


def rate_of(server: Server, data: bytes) -> Callable[[], float]:
    """Return what measures answers per second."""
    return lambda: throughput(server.port, data, seconds=ROUND_SECONDS)


def cpu_of(server: Server, data: bytes, requests: int = REQUESTS) -> Callable[[], float]:
    """Return what measures the server's CPU seconds per answer, one client asking after the other's answer."""

    def measure() -> float:
        connection = Connection(server.port)
        with contextlib.closing(connection.socket):
            before = server.cpu_seconds()
            for _ in range(requests):
                connection.ask(data)
            return (server.cpu_seconds() - before) / requests

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
    ours, theirs = request("/resources/all"), request("/constant")
    with constant_server() as constant:
        rates = alternating(benchmark, rate_of(api, ours), rate_of(constant, theirs))
        costs = alternating(None, cpu_of(api, ours), cpu_of(constant, theirs))
    compared = Row(
        "answers per second of `/resources/all`, 4 connections",
        statistics.median(rates[0]),
        "count",
        ratio=median_ratio(*rates),
        against="constant bytes",
        budget=Budget(0.9, of_ratio=True, at_least=True),
    )
    rows.add(compared)
    cost, ratio = statistics.median(costs[0]), median_ratio(*costs)
    rows.add(Row("server CPU per answer", cost, "seconds", ratio=ratio, against="constant bytes"))


@pytest.mark.benchmark(group="api")
@pytest.mark.parametrize("path", ["/resources/all", "/snapshot"])
def bench_not_modified(benchmark: BenchmarkFixture, rows: Rows, name: str, path: str) -> None:
    """Is a 304 cheaper than the 200 it stands for?"""
    # A minute between samples, so that the tag holds as long as the measurement.
    config = ResourceConfig(name=name, check_interval=60.0, observation_period=60.0)
    with SamplerProcess(config), api_server(name) as api:
        known = request(path, If_None_Match=tag_of(api, path))
        costs = alternating(benchmark, cpu_of(api, known), cpu_of(api, request(path)))
    budget = Budget(1.0, of_ratio=True)
    ratio, cost = median_ratio(*costs), statistics.median(costs[0])
    rows.add(Row(f"server CPU per 304 of `{path}`", cost, "seconds", ratio=ratio, against="its 200", budget=budget))


@pytest.mark.benchmark(group="api")
def bench_latency(benchmark: BenchmarkFixture, rows: Rows, api: Server) -> None:
    """How long does an answer take at 1,000 requests a second?"""
    data, seen = request("/resources/all"), list[float]()
    run(benchmark, lambda: seen.extend(latencies(api.port, data, per_second=RATE, seconds=RATE_SECONDS)))
    cuts = statistics.quantiles(seen, n=100)
    rows.add(Row("median", cuts[49], "seconds"))
    rows.add(Row("p99", cuts[98], "seconds"))


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
        counts = list[int]()
        run(benchmark, lambda: counts.append(listen(selector, LISTEN_SECONDS)))
        cpu = (api.cpu_seconds() - before) / (time.perf_counter() - began)
        resident = memory_bytes(api.pid, "VmRSS")
    rows.add(Row(f"CPU of the API with {LISTENERS} listeners", cpu * 100, "percent"))
    rows.add(Row(f"RSS of the API with {LISTENERS} listeners", resident, "bytes"))
    rows.add(Row("RSS per listener", (resident - idle) / LISTENERS, "bytes"))
    rows.add(Row("samples per second that each listener got", counts[0] / LISTENERS / LISTEN_SECONDS, "count"))


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
    options = [
        "-w",
        "--disable-webui",
        "-B",
        "127.0.0.1",
        "-p",
        str(port),
        "--disable-check-update",
        "--disable-autodiscover",
    ]
    with Server([sys.executable, "-m", "glances", *options], port) as glances:
        ours, theirs = rate_of(api, request("/resources/cpu")), rate_of(glances, request("/api/4/cpu"))
        rates = alternating(benchmark, ours, theirs)
    compared = Row(
        "answers per second of `/resources/cpu`, 4 connections",
        statistics.median(rates[0]),
        "count",
        ratio=median_ratio(*rates),
        against="Glances `/api/4/cpu`",
        budget=Budget(5.0, of_ratio=True, at_least=True),
    )
    rows.add(compared)
