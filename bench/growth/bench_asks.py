"""What many workers that ask at once cost each other."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.growth.askers import Asked
from bench.measure import Rows, run
from bench.results import Row, Series
from bench.stage import SamplerProcess, here
from shm_monitor.config.resource import ResourceConfig

WORKERS = (1, 16, 64, 256)
SECONDS = 2.0
PATIENT_SECONDS = 60.0
PLOT, AXIS = "asks", "workers that ask at once"


def asked(name: str, count: int) -> Asked:
    """Return what *count* workers saw that asked the sampler *name* at once."""
    command = [sys.executable, "-m", "bench.growth.askers", name, str(count), str(SECONDS)]
    environ = here()
    done = subprocess.run(command, env=environ, check=True, capture_output=True)
    return msgspec.json.decode(done.stdout, type=Asked)


@pytest.mark.timeout(400)
@pytest.mark.benchmark(group="growth")
def bench_asks(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """Does one ask cost more when many workers ask at once?"""
    # 256 workers on few cores keep the sampler waiting for longer than a hung one is given.
    config = ResourceConfig(name=name, check_interval=0.1, stale_after=PATIENT_SECONDS, compile="never")
    seen, sampler_bytes = list[Asked](), list[float]()
    with SamplerProcess(config) as sampler:

        def ask_in_turn() -> None:
            for count in WORKERS:
                seen.append(asked(name, count))
                sampler_bytes.append(sampler.private_bytes())

        run(benchmark, ask_in_turn)
    cpu, memory = "CPU of one call", "Private memory"
    for label, values, flat in (
        ("`should_prune()`", [one.should_prune_seconds for one in seen], True),
        ("an empty function", [one.empty_seconds for one in seen], True),
        ("`multiprocessing.Event.is_set()`", [one.event_seconds for one in seen], False),
    ):
        rows.draw(Series(label, PLOT, cpu, AXIS, WORKERS, tuple(values), "seconds", flat))
    for label, values in (("the sampler", sampler_bytes), ("one worker", [one.private_bytes for one in seen])):
        rows.draw(Series(label, PLOT, memory, AXIS, WORKERS, tuple(values), "bytes", flat=True))
    for count, one in zip(WORKERS, seen, strict=True):
        case = f"`should_prune()`, {count} at once: CPU of one"
        rows.add(Row(case, one.should_prune_seconds, "seconds", one.ratio, "an empty function"))
