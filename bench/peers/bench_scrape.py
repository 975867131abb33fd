"""What one scrape of Prometheus costs: our /metrics beside node_exporter."""

from __future__ import annotations

import contextlib
import shutil
import statistics

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.api_load import HOST, Connection, Server, api_server, free_port, request
from bench.bench_api import alternating, cpu_of, median_ratio
from bench.measure import Rows
from bench.results import Row
from bench.stage import SamplerProcess, private_bytes
from shm_monitor.config.resource import ResourceConfig

PROGRAMS = ("prometheus-node-exporter", "node_exporter")  # of Debian, of its own archive
NOTE = (
    "it reads file systems, disks, network, sensors and counters of the kernel at each scrape, with no sampler beside "
    "it. It has no GPUs, no cgroup of its own and no verdict, and knows nothing of what was between two scrapes."
)


def answer_of(server: Server) -> bytes:
    """Return the whole answer of *server* to one scrape."""
    connection = Connection(server.port)
    with contextlib.closing(connection.socket):
        return connection.ask(request("/metrics"))


@pytest.mark.benchmark(group="peers")
def bench_scrape(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """What does one scrape cost, by CPU of who answers it?"""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("node_exporter is not installed; try: apt-get install prometheus-node-exporter")
    port = free_port()
    command = [program, f"--web.listen-address={HOST}:{port}", "--log.level=error"]
    with (
        SamplerProcess(ResourceConfig(name=name)) as sampler,
        api_server(name) as api,
        Server(command, port) as exporter,
    ):
        data = request("/metrics")
        theirs, ours = alternating(benchmark, cpu_of(exporter, data, 40), cpu_of(api, data, 40))
        bodies = {"node_exporter": answer_of(exporter), "ours": answer_of(api)}
        held = private_bytes(exporter.pid), private_bytes(api.pid) + sampler.private_bytes()
    rows.add(Row("`/metrics` of our API", statistics.median(ours), "seconds"))
    ratio = median_ratio(theirs, ours)
    rows.add(Row("node_exporter", statistics.median(theirs), "seconds", ratio, "our API", note=NOTE))
    for who, body in bodies.items():
        count = sum(1 for line in body.partition(b"\r\n\r\n")[2].splitlines() if line and not line.startswith(b"#"))
        rows.add(Row(f"samples in an answer, {who}", count, "count"))
    rows.add(Row("private memory, node_exporter", held[0], "bytes"))
    rows.add(Row("private memory, our API and sampler", held[1], "bytes"))
