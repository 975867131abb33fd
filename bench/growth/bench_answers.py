"""How many answers the API gives for a second of its CPU, and what it holds, against the number of metrics."""

from __future__ import annotations

import contextlib
import statistics
from pathlib import Path
from typing import NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import shm_monitor
from bench.api_load import Connection, api_server, request
from bench.bench_api import cpu_of
from bench.growth.bench_metrics import stand_in
from bench.measure import Rows, run
from bench.results import Row, Series
from bench.stage import SamplerProcess, new_name, private_bytes
from shm_monitor.config.resource import ResourceConfig

GPUS = (0, 1, 4, 12, 31)
EACH = "Its answer has each metric in it."
PATHS = {"/resources/all": "", "/snapshot": EACH, "/metrics": EACH}
ROUNDS, REQUESTS = 3, 150
PLOT, AXIS = "api", "metrics"


class Served(NamedTuple):
    """One API: metrics of its sampler, answers for a second of CPU and bytes of an answer by path, private memory."""

    metrics: int
    per_second: list[float]
    answer_bytes: list[int]
    private_bytes: int


def served(environ: dict[str, str]) -> Served:
    """Return how the API serves a sampler of CPU, memory and GPUs in the process environment *environ*."""
    with new_name() as name:
        config = ResourceConfig(name=name, compile="never")
        with (
            SamplerProcess(config, environ=environ, only=("cpu", "memory", "gpu")),
            shm_monitor.attach(name) as reader,
            api_server(name) as server,
        ):
            rounds = [[1 / cpu_of(server, request(path), REQUESTS)() for path in PATHS] for _ in range(ROUNDS + 1)]
            connection = Connection(server.port)
            with contextlib.closing(connection.socket):
                sizes = [len(connection.ask(request(path))) for path in PATHS]
            rates = [statistics.median(column) for column in zip(*rounds[1:], strict=True)]
            return Served(len(reader.view().schema.metrics), rates, sizes, private_bytes(server.pid))


@pytest.mark.timeout(400)
@pytest.mark.benchmark(group="growth")
def bench_answers(benchmark: BenchmarkFixture, rows: Rows, tmp_path: Path) -> None:
    """How many answers does the API give for a second of its CPU, with more metrics?"""
    seen = list[Served]()
    run(benchmark, lambda: seen.extend(served(stand_in(tmp_path, gpus)) for gpus in GPUS))
    counts = tuple(float(one.metrics) for one in seen)
    for place, (path, why) in enumerate(PATHS.items()):
        rates = tuple(one.per_second[place] for one in seen)
        panel = "Answers for a second of CPU"
        rows.draw(Series(path, PLOT, panel, AXIS, counts, rates, "per_second", flat=not why, why=why))
        size = seen[-1].answer_bytes[place]
        rows.add(Row(f"`{path}`, {seen[-1].metrics} metrics: bytes of an answer", size, "bytes"))
        case = f"`{path}`, {seen[-1].metrics} metrics: answers for a second of CPU"
        rows.add(Row(case, rates[-1], "per_second", rates[-1] / rates[0], f"{seen[0].metrics} metrics"))
    held = tuple(float(one.private_bytes) for one in seen)
    why = "The newest answer of each path is kept, ready to be sent."
    rows.draw(Series("API, private", PLOT, "Memory", AXIS, counts, held, "bytes", why=why))
