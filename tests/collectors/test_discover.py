"""What discover() returns here, elsewhere, and what every row of the table must say."""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from shm_monitor import collectors
from shm_monitor.collectors import portable
from shm_monitor.collectors.files import DISABLED, NOT_SUPPORTED, NOT_YET_SAMPLED, Roots
from shm_monitor.errors import ConfigError
from shm_monitor.schema import why_unknown
from tests.support.host_trees import Tree, sample

if TYPE_CHECKING:
    from pathlib import Path

    from shm_monitor.collectors.base import Collector

ROLLED = {"cpu.cpu_percent", "cpu.host_cpu_percent", "memory.usage_bytes", "memory.usage_percent"}
ROLLED |= {"network.usage_bytes_per_second"}
UNIT_ENDS = {"percent": "_percent", "bytes_per_second": "_bytes_per_second", "seconds": "_seconds"}


def host_only(roots: Roots = Roots()) -> list[Collector]:  # noqa: B008  (immutable)
    found = collectors.discover(roots=roots, owner_pid=os.getpid(), mounts=["/", "/dev/shm"])
    return [collector for collector in found if collector.name != "gpu"]


def test_every_source_of_a_linux_host_is_there_once() -> None:
    names = [collector.name for collector in host_only()]

    assert names == ["cpu", "memory", "stall", "network", "disk", "workers", "mount:/", "mount:/dev/shm"]


def test_what_can_block_has_a_thread_and_what_is_read_each_time_has_not() -> None:
    threaded = {collector.name for collector in host_only() if collector.threaded}

    assert threaded == {"workers", "mount:/", "mount:/dev/shm"}
    assert all(collector.threaded == (collector.interval_seconds is not None) for collector in host_only())


def test_every_row_has_a_sentence_a_source_and_the_unit_in_its_name() -> None:
    metrics = [metric for collector in host_only() for metric in collector.metrics]

    assert len({metric.name for metric in metrics}) == len(metrics)
    for metric in metrics:
        assert metric.help.endswith("."), metric
        assert metric.source, metric
        assert metric.field.endswith(UNIT_ENDS.get(metric.unit, "")), metric
        assert not metric.integer or metric.unit not in UNIT_ENDS, metric
    levels = {metric.name for metric in metrics if metric.name.startswith("memory:") and metric.field == "usage_bytes"}
    assert "memory:host.usage_bytes" in levels
    assert {metric.name for metric in metrics if metric.rolled} == ROLLED | levels


def test_readings_on_this_host_agree_with_psutil() -> None:
    received_before = psutil.net_io_counters(pernic=True)["lo"].bytes_recv
    found = {name: value for collector in host_only() for name, value in sample(collector).items()}
    received_after = psutil.net_io_counters(pernic=True)["lo"].bytes_recv

    assert found["cpu.count"] == psutil.cpu_count()
    assert found["memory.host_total_bytes"] == psutil.virtual_memory().total
    assert found["memory.host_available_bytes"] == pytest.approx(psutil.virtual_memory().available, rel=0.05)
    assert found["memory.swap_total_bytes"] == psutil.swap_memory().total
    received = found["network:lo.receive_bytes_count"]
    assert isinstance(received, float)
    assert received_before <= received <= received_after


def test_a_scope_that_cannot_be_obeyed_is_refused() -> None:
    with pytest.raises(ConfigError, match="scope='nonsense'"):
        collectors.discover(scope="nonsense")


def test_importing_the_collectors_loads_no_gpu_library_and_no_psutil() -> None:
    code = "import sys, shm_monitor.collectors; print({'pynvml', 'psutil'} & set(sys.modules))"

    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_without_proc_psutil_tells_cpu_memory_and_network(tmp_path: Path) -> None:
    """As on macOS; the same rows, so that a reader need not care."""
    found = host_only(Roots(str(tmp_path), str(tmp_path)))
    readings = {name: value for collector in found for name, value in sample(collector).items()}

    assert [collector.name for collector in found] == ["cpu", "memory", "network", "mount:/", "mount:/dev/shm"]
    assert readings["cpu.cpu_percent"] == "not_yet_sampled"
    assert readings["cpu.effective_count"] == psutil.cpu_count()
    assert readings["memory.capacity_bytes"] == psutil.virtual_memory().total
    assert readings["memory.reclaim_events_count"] == "not_supported"
    assert readings["network.usage_bytes_per_second"] == "not_yet_sampled"


def test_psutil_gives_rates_from_the_second_sample_on() -> None:
    for collector in (portable.PortableCpuCollector(), portable.PortableNetworkCollector()):
        sample(collector)
        sum(range(3_000_000))
        first = collector.metrics[0].name
        value = sample(collector)[first]
        assert isinstance(value, float)
        assert value >= 0
        collector.close()


def test_the_reason_survives_the_way_through_an_array() -> None:
    out = np.empty(3)
    out[:] = [NOT_SUPPORTED, NOT_YET_SAMPLED, DISABLED]

    assert [why_unknown(value).text for value in out.tolist()] == ["not_supported", "not_yet_sampled", "disabled"]
    assert all(math.isnan(value) for value in out)


def test_nothing_stays_open_after_close() -> None:
    gc.collect()  # what other tests left open
    before = len(os.listdir("/proc/self/fd"))
    found = host_only()
    for collector in found:
        sample(collector)
    assert len(os.listdir("/proc/self/fd")) > before
    for collector in found:
        collector.close()

    assert len(os.listdir("/proc/self/fd")) == before


def test_a_recorded_tree_gives_the_same_rows_in_every_sample(tmp_path: Path) -> None:
    found = host_only(Tree("hybrid", tmp_path).roots)
    rows = [tuple(collector.metrics) for collector in found]
    for collector in found:
        sample(collector)

    assert rows == [tuple(collector.metrics) for collector in found]
