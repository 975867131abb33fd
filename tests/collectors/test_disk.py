"""Disks on recorded trees, and mounts as they are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from shm_monitor.collectors.disk import DiskCollector, MountCollector
from tests.support.host_trees import Tree, readings, sample

if TYPE_CHECKING:
    from pathlib import Path

VDA = "254 0 vda 7220 5498 {read} 4619 4009 40481 {written} 9485 0 {busy_ms} 14417\n"
DM = "253 0 dm-0 7220 5498 {read} 4619 4009 40481 {written} 9485 0 {busy_ms} 14417\n"


def disk(tree: Tree) -> DiskCollector:
    return DiskCollector(tree.roots, clock=tree.clock)


def test_whole_devices_are_shown_and_neither_partitions_nor_loop_nor_ram(tmp_path: Path) -> None:
    assert disk(Tree("v2", tmp_path)).facts == {"devices": ["vda", "dm-0"]}


def test_what_stands_on_another_device_counts_in_no_total(tmp_path: Path) -> None:
    """A sector is 512 bytes whatever the device; dm-0 is the same bytes again."""
    tree = Tree("v2", tmp_path)
    collector = disk(tree)
    tree.write("proc/diskstats", (VDA + DM).format(read=1000, written=2000, busy_ms=100))
    sample(collector)
    tree.clock.forward(2)
    tree.write("proc/diskstats", (VDA + DM).format(read=1008, written=2400, busy_ms=1600))
    found = sample(collector)

    assert (found["disk.read_bytes_per_second"], found["disk.write_bytes_per_second"]) == (4 * 512, 200 * 512)
    assert found["disk:dm-0.write_bytes_per_second"] == 200 * 512
    assert found["disk:vda.busy_percent"] == 75
    assert (found["disk:vda.read_bytes_count"], found["disk:vda.write_bytes_count"]) == (1008 * 512, 2400 * 512)


def test_paths_of_a_multipath_device_are_left_out_and_a_zvol_counts_in_no_total(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    names = ("nvme0n1", "nvme0c0n1", "nvme0c1n1", "zd0")
    line = "259 0 {name} 1 1 {count} 1 1 1 {count} 1 0 1 1\n"
    for name in names:
        tree.write(f"sys/block/{name}/dev", "259:0")
    tree.write("proc/diskstats", "".join(line.format(name=name, count=0) for name in names))
    collector = disk(tree)
    sample(collector)
    tree.clock.forward(1)
    tree.write("proc/diskstats", "".join(line.format(name=name, count=10) for name in names))

    assert collector.facts == {"devices": ["nvme0n1", "zd0"]}
    assert sample(collector)["disk.read_bytes_per_second"] == 10 * 512


def test_an_array_that_is_assembled_later_does_not_count_again(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    tree.remove("sys/block/dm-0/slaves/vda/dev")
    (tmp_path / "sys/block/dm-0/slaves/vda").rmdir()
    tree.write("proc/diskstats", (VDA + DM).format(read=0, written=0, busy_ms=0))
    collector = disk(tree)
    sample(collector)
    tree.write("sys/block/dm-0/slaves/vda/dev", "254:0")
    tree.clock.forward(1)
    tree.write("proc/diskstats", (VDA + DM).format(read=10, written=0, busy_ms=0))

    assert sample(collector)["disk.read_bytes_per_second"] == 10 * 512


def test_the_first_rates_are_unknown_while_the_counts_are_known(tmp_path: Path) -> None:
    found = sample(disk(Tree("v2", tmp_path)))

    assert found["disk.read_bytes_per_second"] == found["disk:vda.busy_percent"] == "not_yet_sampled"
    assert found["disk:vda.read_bytes_count"] == 1619914 * 512


def test_a_device_that_was_replaced_is_unknown_once(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = disk(tree)
    sample(collector)
    tree.clock.forward(1)
    tree.write("proc/diskstats", VDA.format(read=0, written=0, busy_ms=0))
    found = sample(collector)

    assert found["disk.read_bytes_per_second"] == found["disk:vda.write_bytes_per_second"] == "error"
    assert found["disk:dm-0.write_bytes_per_second"] == "not_supported"


def test_a_garbage_line_costs_its_own_device_only(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = disk(tree)
    tree.write("proc/diskstats", "253 0 dm-0 x\n" + VDA.format(read=8, written=0, busy_ms=0))
    found = sample(collector)

    assert found["disk:dm-0.read_bytes_count"] == "error"
    assert found["disk:vda.read_bytes_count"] == 8 * 512


def test_without_diskstats_everything_is_unknown(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    collector = disk(tree)
    tree.remove("proc/diskstats")

    assert set(sample(collector).values()) == {"not_supported"}


def test_without_sys_no_device_can_be_told_from_a_partition(tmp_path: Path) -> None:
    tree = Tree("v2", tmp_path)
    (tmp_path / "sys/block").rename(tmp_path / "sys/gone")

    assert sample(disk(tree)) == {
        "disk.read_bytes_per_second": "not_supported",
        "disk.write_bytes_per_second": "not_supported",
    }


def test_the_space_of_a_mount_is_what_statvfs_says(tmp_path: Path) -> None:
    collector = MountCollector(str(tmp_path))
    status = os.statvfs(tmp_path)
    total, used, available = (
        sample(collector)[f"mount:{tmp_path}.{field}_bytes"] for field in ("total", "used", "available")
    )

    assert total == status.f_blocks * status.f_frsize
    assert used == pytest.approx((status.f_blocks - status.f_bfree) * status.f_frsize, rel=0.02)
    assert available == pytest.approx(status.f_bavail * status.f_frsize, rel=0.02)
    assert (collector.threaded, collector.interval_seconds) == (True, 5.0)


def test_a_mount_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    assert set(sample(MountCollector(str(tmp_path / "none"))).values()) == {"not_supported"}


def test_the_units_of_rows_are_bytes_and_percent(tmp_path: Path) -> None:
    collector = disk(Tree("v2", tmp_path))

    assert {metric.unit for metric in collector.metrics} == {"bytes_per_second", "bytes", "percent"}
    assert readings(collector, "read_bytes_per_second") == ("not_yet_sampled",)
