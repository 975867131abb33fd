"""What a sample costs, and what a sampler holds, against the number of samples that the decision looks back over."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.growth.bench_metrics import MODES, Kernels
from bench.growth.filling import Filled
from bench.measure import Rows, run
from bench.results import Budget, Row, Series
from bench.stage import here

WINDOWS = (10, 100, 1_000, 10_000)
PLOT, AXIS = "window", "samples in the window"
MEMORY = "Memory on top of the first"
KEPT = "The samples themselves are kept, in the segment."


def filled(kernels: Kernels) -> Filled:
    """Return what samplers take whose windows are full, in a process of their own."""
    command = [sys.executable, "-m", "bench.growth.filling", kernels, *map(str, WINDOWS)]
    done = subprocess.run(command, env=here(), check=True, capture_output=True)
    return msgspec.json.decode(done.stdout, type=Filled)


@pytest.mark.timeout(400)
@pytest.mark.benchmark(group="growth")
def bench_window(benchmark: BenchmarkFixture, rows: Rows) -> None:
    """Does a sample cost more when the decision looks back over more of them?"""
    seen: dict[Kernels, Filled] = {}
    run(benchmark, lambda: seen.update({mode: filled(mode) for mode in MODES}))
    for mode, label in MODES.items():
        seconds = tuple(seen[mode].sample_seconds)
        rows.draw(Series(label, PLOT, "CPU of one sample", AXIS, WINDOWS, seconds, "seconds", flat=True))
        case = f"CPU of a sample, {label}, window of {WINDOWS[-1]:,} samples"
        ratio = seconds[-1] / seconds[0]
        rows.add(Row(case, seconds[-1], "seconds", ratio, f"{WINDOWS[0]} samples", Budget(2.0, of_ratio=True)))
    size = tuple(float(one) for one in seen["never"].resident_bytes)
    rows.draw(Series("sampler with its segment", PLOT, MEMORY, AXIS, WINDOWS, size, "bytes", why=KEPT))
