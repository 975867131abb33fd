"""Whose GPU memory it is: pids of NVML against recorded /proc trees of hosts and containers."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from shm_monitor.collectors.gpu.processes import (
    METRICS,
    PidNamespace,
    ProcessReading,
    process_values,
)
from shm_monitor.schema import Unknown, unknown, why_unknown
from tests.support.nvml_library import StandIn, gpu_process

INITIAL = "pid:[4026531836]"
OURS = "pid:[4026532561]"
OTHER = "pid:[4026532999]"


class Proc:
    """A recorded /proc: the files that tell one pid namespace from another."""

    def __init__(self, root: Path, *, own_ids: str, own_namespace: str) -> None:
        self.root = root
        self.add("self", own_ids, own_namespace)

    def add(self, who: str | int, ids: str, namespace: str = "", *, gpu: bool = False) -> None:
        """Add a process: its NSpid line ("" for a kernel without), its namespace, whether it has a GPU open."""
        folder = self.root / str(who)
        (folder / "fd").mkdir(parents=True)
        (folder / "status").write_text("Name:\tpython\nUmask:\t0022\n" + (f"NSpid:\t{ids}\n" if ids else ""))
        (folder / "fd" / "0").symlink_to("/dev/null")
        if gpu:
            (folder / "fd" / "7").symlink_to("/dev/nvidia0")
        if namespace:
            (folder / "ns").mkdir()
            (folder / "ns" / "pid").symlink_to(namespace)

    def ours(self, *reported: int) -> dict[int, int]:
        return PidNamespace(self.root).ours(reported)


def test_on_the_host_every_living_pid_is_what_it_says(tmp_path: Path) -> None:
    """A process in a container has a pid on the host too, and that is the one that is shown there."""
    proc = Proc(tmp_path, own_ids="100", own_namespace=INITIAL)
    proc.add(200, "200", INITIAL)
    proc.add(5000, "5000\t17", OTHER)

    assert proc.ours(200, 5000, 6000, 0) == {200: 200, 5000: 5000}


def test_a_host_whose_kernel_has_no_nspid_line_is_a_host(tmp_path: Path) -> None:
    proc = Proc(tmp_path, own_ids="", own_namespace=INITIAL)
    proc.add(200, "")

    assert proc.ours(200) == {200: 200}


def test_in_a_container_a_driver_that_speaks_our_pids_is_believed(tmp_path: Path) -> None:
    """Every pid it lists is a process here that has a GPU open."""
    proc = Proc(tmp_path, own_ids="1", own_namespace=OURS)
    proc.add(17, "17", OURS, gpu=True)
    proc.add(18, "18", OURS, gpu=True)

    assert proc.ours(17, 18) == {17: 17, 18: 18}


def test_in_a_container_a_pid_of_the_host_is_not_the_process_here_of_that_number(tmp_path: Path) -> None:
    proc = Proc(tmp_path, own_ids="1", own_namespace=OURS)
    proc.add(17, "17", OURS)

    assert proc.ours(17) == {}


def test_one_pid_that_is_not_here_means_that_the_driver_speaks_of_another_place(tmp_path: Path) -> None:
    """Then the pid of a process here, GPU open and all, may be a stranger's by chance."""
    proc = Proc(tmp_path, own_ids="1", own_namespace=OURS)
    proc.add(17, "17", OURS, gpu=True)

    assert proc.ours(17, 51234) == {}


def test_a_process_that_the_driver_hides_behind_pid_0_does_not_count_against_ours(tmp_path: Path) -> None:
    proc = Proc(tmp_path, own_ids="1", own_namespace=OURS)
    proc.add(17, "17", OURS, gpu=True)

    assert proc.ours(0, 17) == {17: 17}


def test_the_proc_of_the_host_translates_pids_of_the_host(tmp_path: Path) -> None:
    """Mounted into our container it lists us as 5000, whom we know as 17, and strangers beside us."""
    proc = Proc(tmp_path, own_ids="4000\t1", own_namespace=OURS)
    proc.add(5000, "5000\t17", OURS, gpu=True)
    proc.add(6000, "6000\t17", OTHER, gpu=True)
    proc.add(7000, "7000", INITIAL, gpu=True)
    proc.add(8000, "8000\t30\t2", "pid:[4026533000]", gpu=True)

    assert proc.ours(5000, 6000, 7000, 8000) == {5000: 17}


def test_a_process_whose_namespace_may_not_be_read_is_nobody_of_ours(tmp_path: Path) -> None:
    proc = Proc(tmp_path, own_ids="4000\t1", own_namespace=OURS)
    proc.add(5000, "5000\t17", gpu=True)

    assert proc.ours(5000) == {}


def test_this_process_is_found_in_the_real_proc() -> None:
    """In the initial namespace as itself; in a container not, since it has no GPU open."""
    initial = os.readlink("/proc/self/ns/pid") == INITIAL

    assert PidNamespace(Path("/proc")).ours([os.getpid()]) == ({os.getpid(): os.getpid()} if initial else {})


def test_the_largest_eight_are_shown_and_the_rest_is_counted() -> None:
    reading = ProcessReading({100 + place: float(place) for place in range(10)})

    values = _by_field(reading, {pid: pid for pid in reading.processes})

    assert values["processes_count"] == 10.0
    assert [values[f"process_{place}_pid"] for place in range(8)] == [109, 108, 107, 106, 105, 104, 103, 102]
    assert values["process_0_memory_bytes"] == 9.0
    assert values["unattributed_memory_bytes"] == 0.0


def test_memory_of_a_stranger_is_unattributed_and_his_pid_is_not_shown() -> None:
    values = _by_field(ProcessReading({5000: 1000.0, 6000: 200.0}), {5000: 17})

    assert (values["process_0_pid"], values["process_0_memory_bytes"]) == (17.0, 1000.0)
    assert why_unknown(values["process_1_pid"]) == Unknown.DISABLED
    assert values["unattributed_memory_bytes"] == 200.0
    assert values["processes_count"] == 2.0


def test_a_process_whose_memory_is_not_told_is_shown_without_it() -> None:
    held = {17: unknown(Unknown.NOT_SUPPORTED), 18: 5.0}

    values = _by_field(ProcessReading(held), {17: 17, 18: 18})

    assert [values["process_0_pid"], values["process_1_pid"]] == [18.0, 17.0]
    assert why_unknown(values["process_1_memory_bytes"]) == Unknown.NOT_SUPPORTED


def test_strangers_whose_memory_is_not_told_are_not_zero_bytes() -> None:
    values = _by_field(ProcessReading({5000: unknown(Unknown.NOT_SUPPORTED)}), {})

    assert why_unknown(values["unattributed_memory_bytes"]) == Unknown.NOT_SUPPORTED


def test_a_list_that_failed_makes_every_field_unknown_for_its_reason() -> None:
    values = process_values(ProcessReading({}, Unknown.NO_PERMISSION), {})

    assert {why_unknown(value) for value in values} == {Unknown.NO_PERMISSION}
    assert all(math.isnan(value) for value in values)


@pytest.fixture
def nvml(tmp_path: Path) -> StandIn:
    return StandIn.create(tmp_path)


@pytest.mark.processes
def test_processes_of_the_driver_are_mapped_merged_and_summed(nvml: StandIn, tmp_path: Path) -> None:
    """5000 computes and draws: its memory is in both lists and counts once. 6000 is a stranger, 7000 tells nothing."""
    proc = Proc(tmp_path / "proc", own_ids="4000\t1", own_namespace=OURS)
    proc.add(5000, "5000\t17", OURS, gpu=True)
    proc.add(6000, "6000\t17", OTHER, gpu=True)
    proc.add(7000, "7000\t21", OURS, gpu=True)
    nvml.script(
        "devices 2",
        "process 0 5000 3000",
        "process 0 5000 3000 graphics",
        "process 0 6000 500 graphics",
        f"process 0 7000 {2**64 - 1}",
        "process 1 5000 40",
    )

    with gpu_process(nvml.environ) as process:
        process.discover(proc_root=str(proc.root))
        sample = process.collect()

    assert sample["gpu:0.processes_count"] == 3.0
    assert (sample["gpu:0.process_0_pid"], sample["gpu:0.process_0_memory_bytes"]) == (17.0, 3000.0)
    assert (sample["gpu:0.process_1_pid"], sample["gpu:0.process_1_memory_bytes"]) == (21.0, "not_supported")
    assert sample["gpu:0.process_2_pid"] == "disabled"
    assert sample["gpu:0.unattributed_memory_bytes"] == 500.0
    assert (sample["gpu:1.process_0_pid"], sample["gpu:1.process_0_memory_bytes"]) == (17.0, 40.0)


def _by_field(reading: ProcessReading, ours: dict[int, int]) -> dict[str, float]:
    return {metric.field: value for metric, value in zip(METRICS, process_values(reading, ours), strict=True)}
