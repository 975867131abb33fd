"""What a sample costs, and what a sampler holds, against how often it samples."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import shm_monitor
from bench.growth.bench_metrics import MODES, Kernels
from bench.measure import Rows, run
from bench.results import Row, Series
from bench.stage import SamplerProcess, new_name
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.segment.names import object_path

RATES_HZ = (1, 10, 100, 1000)
LEAST_SAMPLES, LEAST_SECONDS = 10, 3.0
PLOT, AXIS = "rate", "samples a second"
UNSHARED = "It has those pages of its segment that nobody else has looked at."
WARM = "Between two samples of one second the CPU's caches forget the sampler."


class Kept(NamedTuple):
    """One sampler: CPU seconds of a sample, its private memory, its segment's size, the share of its turns it took."""

    sample_seconds: float
    private_bytes: int
    segment_bytes: int
    taken_ratio: float


def kept(rate_hz: int, kernels: Kernels) -> Kept:
    """Return what a sampler of everything takes that samples *rate_hz* times a second."""
    with new_name() as name:
        config = ResourceConfig(
            name=name, check_interval=1 / rate_hz, history_seconds=10.0, stale_after=60.0, compile=kernels
        )
        with SamplerProcess(config) as sampler, shm_monitor.attach(name) as reader:
            if kernels == "always":
                sampler.await_compiled()
            seconds = max(LEAST_SAMPLES / rate_hz, LEAST_SECONDS)
            first, used, began = reader.snapshot().sequence, sampler.cpu_seconds(), time.monotonic()
            time.sleep(seconds)
            used, lasted = sampler.cpu_seconds() - used, time.monotonic() - began
            samples = reader.snapshot().sequence - first
            size = os.stat(object_path(name)).st_size
            return Kept(used / samples, sampler.private_bytes(), size, samples / (lasted * rate_hz))


@pytest.mark.timeout(400)
@pytest.mark.benchmark(group="growth")
def bench_rate(benchmark: BenchmarkFixture, rows: Rows) -> None:
    """What does a sample cost that comes more often?"""
    seen: dict[Kernels, list[Kept]] = {mode: [] for mode in MODES}

    def measure() -> None:
        for rate_hz in RATES_HZ:
            for mode in MODES:
                seen[mode].append(kept(rate_hz, mode))

    run(benchmark, measure)
    for mode, label in MODES.items():
        seconds = tuple(one.sample_seconds for one in seen[mode])
        rows.draw(Series(label, PLOT, "CPU of one sample", AXIS, RATES_HZ, seconds, "seconds", why=WARM))
    for mode, label in MODES.items():
        size = tuple(float(one.private_bytes) for one in seen[mode])
        rows.draw(Series(f"sampler, {label}, private", PLOT, "Memory", AXIS, RATES_HZ, size, "bytes", why=UNSHARED))
    ring = tuple(float(one.segment_bytes) for one in seen["never"])
    rows.draw(Series("segment, 10 s", PLOT, "Memory", AXIS, RATES_HZ, ring, "bytes", why="As many samples are kept."))
    for mode, label in MODES.items():
        for rate_hz, one in zip(RATES_HZ, seen[mode], strict=True):
            cpu = 100 * one.sample_seconds * rate_hz * one.taken_ratio
            rows.add(Row(f"{label}, {rate_hz} Hz: CPU of one core", cpu, "percent"))
            rows.add(Row(f"{label}, {rate_hz} Hz: samples taken", 100 * one.taken_ratio, "percent"))
