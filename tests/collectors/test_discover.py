"""What discover() returns here, elsewhere, and what every row of the table must say."""

from __future__ import annotations

import gc
import math
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import psutil
import pytest

from shm_monitor import collectors
from shm_monitor.collectors import portable
from shm_monitor.collectors.files import DISABLED, NOT_SUPPORTED, NOT_YET_SAMPLED, Roots
from shm_monitor.errors import ConfigError
from shm_monitor.schema import why_unknown
from shm_monitor.worker.attaching import attach
from tests.support.host_trees import Tree, sample
from tests.support.marks import needs_network_interface
from tests.support.real_sampler import RealSampler, fast
from tests.support.waiting import wait_until

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


@pytest.mark.processes
def test_importing_the_collectors_loads_no_gpu_library_and_no_psutil() -> None:
    code = "import sys, shm_monitor.collectors; print({'pynvml', 'psutil'} & set(sys.modules))"

    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


@needs_network_interface
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


@needs_network_interface
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


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["memory", "cpu"], ["memory", "cpu"]),
        (["-gpu", "-workers"], ["cpu", "memory", "stall", "network", "disk", "mount"]),
        (["all", "-gpu"], ["cpu", "memory", "stall", "network", "disk", "workers", "mount"]),
        (["memory", "all"], ["memory", "cpu", "stall", "network", "disk", "workers", "mount", "gpu"]),
        (["cpu", "queue", "cpu"], ["cpu", "queue"]),
    ],
)
def test_the_collectors_that_are_named_are_chosen_once_each(names: list[str], found: list[str]) -> None:
    assert collectors.chosen(names) == found


def test_only_the_collectors_that_are_named_are_made() -> None:
    assert [collector.name for collector in collectors.discover(["stall", "memory"])] == ["stall", "memory"]


OWN = "tests.support.fake_collectors:prints"


def test_a_collector_of_a_user_is_made_by_its_module_and_factory() -> None:
    assert [collector.name for collector in collectors.discover(["cpu", OWN])] == ["cpu", "prints"]


def test_a_collector_of_an_installed_package_is_made_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "queue_length-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: queue-length\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[shm_monitor.collectors]\nqueue = {OWN}\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert [collector.name for collector in collectors.discover(["memory", "queue"])] == ["memory", "prints"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("memry", "must be one of all, cpu, memory, stall, network, disk, workers, mount, gpu, or module:factory"),
        ("no_such_module:Queue", "must be importable by the sampler: No module named 'no_such_module'"),
        ("math:Queue", "must be importable by the sampler: module 'math' has no attribute 'Queue'"),
        ("fractions:Fraction", "must make a collector; this one lacks name, threaded, interval_seconds, metrics"),
        ("-queue", "must leave out one of cpu, memory"),
    ],
)
def test_a_name_that_gives_no_collector_is_refused_with_what_is_allowed(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        collectors.discover([name])


def test_two_collectors_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two collectors have the name 'hangs'"):
        collectors.discover(["tests.support.fake_collectors:hangs", "tests.support.fake_collectors:hangs_too"])


@pytest.mark.processes
def test_a_sampler_measures_what_it_is_told_times_each_collector_and_says_that_memory_is_left_out(name: str) -> None:
    config = msgspec.structs.replace(fast(name), collectors=("cpu", "tests.support.fake_collectors:slow"))
    with RealSampler(config) as sampler:
        assert sampler.report().error == ""
        with attach(name) as reader:
            wait_until(lambda: reader.snapshot().sampler.collectors["slow"].duration_seconds is not None)
            found = reader.snapshot()
        sampler.process.terminate()
        _, said = sampler.end()

    assert set(found.sampler.collectors) == {"cpu", "slow"}
    assert found.other["fake.slow_count"] == 1.0
    assert (found.sampler.collectors["slow"].duration_seconds or 0) >= 0.17
    assert (found.memory.usage_bytes, found.limits) == (None, [])
    assert "COLLECTORS leaves memory out" in said


@pytest.mark.processes
def test_a_collector_that_nobody_knows_is_an_error_of_the_start_that_names_those_that_there_are(name: str) -> None:
    with RealSampler(msgspec.structs.replace(fast(name), collectors=("memry",))) as sampler:
        report = sampler.report()

    assert report.error == "ConfigError"
    assert "cpu, memory, stall" in report.message
