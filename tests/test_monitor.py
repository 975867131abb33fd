"""Direct readings in this process: no sampler, no shared memory."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

import shm_monitor as sm
from tests.support.marks import needs_network_interface
from tests.support.nvml_library import StandIn
from tests.support.surroundings import child_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def monitor() -> Iterator[sm.ResourceMonitor]:
    with sm.ResourceMonitor() as made:
        yield made


def test_all_metrics_are_those_of_the_rest_body(monitor: sm.ResourceMonitor) -> None:
    found = monitor.get_all_metrics()

    assert list(found) == [
        "cpu_percent",
        "memory_usage_mb",
        "gpu_percent",
        "gpu_memory_percent",
        "network_usage_bytes_per_second",
        "timestamp",
    ]
    assert found["timestamp"] == pytest.approx(time.time(), abs=5)


def test_cpu_is_a_percentage_from_the_first_call_on(monitor: sm.ResourceMonitor) -> None:
    found = monitor.get_cpu_percent()

    assert found is not None
    assert 0 <= found <= 100.5


def test_memory_is_at_least_what_this_process_holds(monitor: sm.ResourceMonitor) -> None:
    found = monitor.get_memory_usage_mb()

    assert found is not None
    assert psutil.Process().memory_info().rss / 2**20 * 0.5 < found < psutil.virtual_memory().total / 2**20


@needs_network_interface
def test_network_is_a_rate(monitor: sm.ResourceMonitor) -> None:
    found = monitor.get_network_usage_bytes_per_second()

    assert found is not None
    assert found >= 0


def program(**settings: str) -> str:
    """Return what a program of its own prints: NVML keeps state for a whole process."""
    code = (
        "import shm_monitor as sm\n"
        "with sm.ResourceMonitor() as m:\n"
        "    all = m.get_all_metrics()\n"
        "    print(m.get_gpu_percent(), all['gpu_percent'], all['gpu_memory_percent'])\n"
    )
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=child_environment(**settings),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()


@pytest.mark.processes
def test_without_a_gpu_the_pair_is_nan_and_the_rest_is_none() -> None:
    """Callers unpack the pair: it stays a pair of numbers, and is no reading of zero."""
    assert program() == "(nan, nan) None None"


@pytest.mark.processes
def test_with_gpus_both_are_means_over_the_devices(tmp_path: Path) -> None:
    stand_in = StandIn.create(tmp_path)
    stand_in.script(
        "devices 2",
        "nvmlDeviceGetUtilizationRates 0 value 40 0",
        "nvmlDeviceGetUtilizationRates 1 value 60 0",
    )

    pair, utilization, _ = program(**stand_in.environ).rsplit(" ", 2)

    assert float(utilization) == pytest.approx(50.0)
    assert pair.startswith("(50.0, ")
