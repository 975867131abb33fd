"""What the REST API takes by itself, and what becomes of it while somebody floods it.

The floods reach this machine's loopback interface only, are bounded in count and time, and end by themselves. Client
and server share the cores of this machine: the latencies have the client's own work in them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import budgets
from bench.api_load import Connection, api_server, request
from bench.measure import Rows, run
from bench.results import Budget, Row
from bench.stage import SamplerProcess, private_bytes
from shm_monitor.config.resource import ResourceConfig
from tests.support.api_flood import Flood, health_seconds, pipelined, resident_bytes, seen_during

FLOOD_SECONDS = 10.0
STARTS = 7


def start_seconds(name: str) -> float:
    """Return how long an API process takes until it says that it listens."""
    command = [sys.executable, "-m", "shm_monitor_api", "--name", name, "--bind", "127.0.0.1:0"]
    began = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        seconds = time.perf_counter() - began
        process.kill()
    if "listening" not in line:
        raise ConnectionError(line)
    return seconds


@pytest.mark.budget
@pytest.mark.benchmark(group="api")
def bench_api_process(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """What does the API process take: to start, and to answer?"""
    starts = list[float]()
    run(benchmark, lambda: starts.append(start_seconds(name)), rounds=STARTS)
    with SamplerProcess(ResourceConfig(name=name)), api_server(name) as server:
        connection = Connection(server.port)
        for path in ("/resources/all", "/snapshot", "/resources/prune", "/history", "/metrics", "/"):
            connection.ask(request(path))
        data = private_bytes(server.pid)
        connection.ask(request("/openapi.json"))
        document = private_bytes(server.pid)
        listeners = [Connection(server.port).socket for _ in range(200)]
        for one in listeners:
            one.sendall(request("/events"))
            one.recv(1)
        began = time.perf_counter()
        server.end()
        stop = time.perf_counter() - began
        for one in (connection.socket, *listeners):
            one.close()
    rows.add(Row("start, until it listens", statistics.median(starts), "seconds"))
    rows.add(Row("end, with 200 clients of `/events`", stop, "seconds", budget=Budget(2.0)))
    rows.add(Row("private memory after data, events and metrics", data, "bytes", budget=budgets.API))
    rows.add(Row("private memory after the OpenAPI document", document, "bytes"))


@pytest.mark.budget
@pytest.mark.benchmark(group="api")
def bench_flood(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """What does `/healthz` take meanwhile, on a new connection each time, and how much memory does the API?"""
    with SamplerProcess(ResourceConfig(name=name)), api_server(name) as server:
        for _ in range(20):
            health_seconds(server.port)
        before, seen = resident_bytes(server.pid), list[tuple[list[float], int]]()
        flood = Flood(lambda: pipelined(server.port, FLOOD_SECONDS))
        run(benchmark, lambda: seen.append(seen_during(flood, server.port, server.pid)))
    seconds, most = seen[0]
    what = "200 clients, 250 KB of requests each, unread"
    rows.add(Row(f"{what}: `/healthz` median", statistics.median(seconds), "seconds", budget=budgets.FLOOD_MEDIAN))
    rows.add(Row(f"{what}: `/healthz` at worst", max(seconds), "seconds", budget=budgets.FLOOD_WORST))
    rows.add(Row(f"{what}: more RSS at most", most - before, "bytes", budget=budgets.FLOOD_BYTES))
