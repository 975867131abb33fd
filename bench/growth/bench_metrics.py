"""What a sample costs and what a sampler holds, against the number of metrics: GPUs of a stand-in for NVML."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import shm_monitor
from bench.measure import Rows, run
from bench.results import Row, Series
from bench.stage import SamplerProcess, new_name
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.segment.names import object_path
from tests.support.nvml_library import StandIn

Kernels = Literal["always", "never"]
MODES: dict[Kernels, str] = {"always": "compiled", "never": "interpreted"}
GPUS = (0, 1, 4, 12, 31)  # 33 metrics each, beside the 17 of CPU and sampler: up to 1,040
INTERVAL_SECONDS = 0.1
SETTLE_SECONDS, SECONDS = 1.0, 3.0
PLOT, AXIS = "metrics", "metrics"
READ = "NVML is asked for each, by a thread for each GPU."
THREADS = "A thread and its readings for each GPU."
RING = "A number for each metric in each sample of the history."


class Held(NamedTuple):
    """One sampler: how many metrics it has, CPU seconds of a sample, its private memory, its segment's size."""

    metrics: int
    sample_seconds: float
    private_bytes: int
    segment_bytes: int


def stand_in(folder: Path, gpus: int) -> dict[str, str]:
    """Return the environment of a process that sees *gpus* GPUs, each with NVML's whole set of answers."""
    nvml = StandIn.create(folder)
    nvml.script(f"devices {gpus}")
    return {key: value for key, value in nvml.environ.items() if not key.endswith("_LOG")}


def held(environ: dict[str, str], kernels: Kernels) -> Held:
    """Return what a sampler of CPU and GPUs takes in the process environment *environ*."""
    with new_name() as name:
        config = ResourceConfig(
            name=name,
            check_interval=INTERVAL_SECONDS,
            history_seconds=60.0,
            stale_after=60.0,
            max_cpu_usage_percent=100.0,
            max_gpu_memory_percent=92.0,
            compile=kernels,
        )
        with (
            SamplerProcess(config, environ=environ, only=("cpu", "gpu")) as sampler,
            shm_monitor.attach(name) as reader,
        ):
            if kernels == "always":
                sampler.await_compiled()
            time.sleep(SETTLE_SECONDS)
            first, used = reader.snapshot().sequence, sampler.cpu_seconds()
            time.sleep(SECONDS)
            used, samples = sampler.cpu_seconds() - used, reader.snapshot().sequence - first
            size = os.stat(object_path(name)).st_size
            return Held(len(reader.view().schema.metrics), used / samples, sampler.private_bytes(), size)


@pytest.mark.timeout(400)
@pytest.mark.benchmark(group="growth")
def bench_metrics(benchmark: BenchmarkFixture, rows: Rows, tmp_path: Path) -> None:
    """What does a metric more cost?"""
    seen: dict[Kernels, list[Held]] = {mode: [] for mode in MODES}

    def measure() -> None:
        for gpus in GPUS:
            for mode in MODES:
                seen[mode].append(held(stand_in(tmp_path, gpus), mode))

    run(benchmark, measure)
    counts = tuple(float(one.metrics) for one in seen["never"])
    for mode, label in MODES.items():
        seconds = tuple(one.sample_seconds for one in seen[mode])
        rows.draw(Series(label, PLOT, "CPU of one sample", AXIS, counts, seconds, "seconds", why=READ))
    for mode, label in MODES.items():
        size = tuple(float(one.private_bytes) for one in seen[mode])
        rows.draw(Series(f"sampler, {label}, private", PLOT, "Memory", AXIS, counts, size, "bytes", why=THREADS))
    size = tuple(float(one.segment_bytes) for one in seen["never"])
    rows.draw(Series("segment, 60 s at 10 Hz", PLOT, "Memory", AXIS, counts, size, "bytes", why=RING))
    for mode, label in MODES.items():
        least, most = seen[mode][0], seen[mode][-1]
        ratio = most.sample_seconds / least.sample_seconds
        case = f"CPU of a sample of {most.metrics} metrics, {label}"
        rows.add(Row(case, most.sample_seconds, "seconds", ratio, f"{least.metrics} metrics"))
