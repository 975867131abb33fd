"""Readings against ground truth that the test computes itself, from /proc and from bytes it counted: within 2 %.

Rates are summed over 30 samples (rate times the time the collector saw pass), so that nothing depends on when a sample
was taken.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shm_monitor.collectors import disk
from shm_monitor.collectors.cgroup.scope import Scope
from shm_monitor.collectors.cpu import CpuCollector
from shm_monitor.collectors.disk import DiskCollector
from shm_monitor.collectors.files import Roots
from shm_monitor.collectors.memory import MemoryCollector
from shm_monitor.collectors.network import NetworkCollector
from tests.support.cgroups import child_in, new_group
from tests.support.host_trees import is_root, readings, sample, ticks
from tests.support.network_namespaces import RECEIVER, answer, process_in, veth_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shm_monitor.collectors.base import Collector

pytestmark = [pytest.mark.slow, pytest.mark.alone]

SAMPLES = 30
MIB = 1 << 20
SENDER = """
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print("ready", flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        sender.sendto(bytes(1000), ("10.123.0.2", 9999))
    print("sent", flush=True)
"""
PACKET_BYTES = 1000 + 8 + 20 + 14  # UDP, IPv4 and Ethernet headers


class Times:
    """The monotonic clock; remembers the last two times that it told."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.before_ns = 0

    def __call__(self) -> int:
        self.before_ns, self.now_ns = self.now_ns, time.monotonic_ns()
        return self.now_ns

    @property
    def seconds(self) -> float:
        return (self.now_ns - self.before_ns) / 1e9


def value(collector: Collector, field: str) -> float:
    (found,) = readings(collector, field)
    assert isinstance(found, float), (field, found)
    return found


def summed(collector: Collector, field: str, times: Times, step: Callable[[], None]) -> float:
    """Return *field*, a rate, times the time that passed, over 30 samples with *step* between them."""
    readings(collector, field)
    result = 0.0
    for _ in range(SAMPLES):
        step()
        result += value(collector, field) * times.seconds
    return result


def test_cpu_percent_is_the_share_of_ticks_that_proc_stat_counts() -> None:
    """A load that changes from sample to sample: the mean of 30 shares is that of the whole time."""
    collector = CpuCollector(Scope.parse("host"), Roots())
    readings(collector, "host_cpu_percent")
    before, shares, weights = ticks(), [], []
    for index in range(SAMPLES):
        last = sum(ticks())
        deadline = time.monotonic() + 0.02 * (index % 5)
        while time.monotonic() < deadline:
            pass
        time.sleep(0.12 - 0.02 * (index % 5))
        shares.append(value(collector, "host_cpu_percent"))
        weights.append(sum(ticks()) - last)
    passed = [now - then for now, then in zip(ticks(), before, strict=True)]
    truth = 100 * (sum(passed) - passed[3] - passed[4]) / sum(passed)
    mean = sum(share * weight for share, weight in zip(shares, weights, strict=True)) / sum(weights)

    assert mean == pytest.approx(truth, abs=2)


def test_host_memory_is_what_meminfo_says_while_it_is_filled() -> None:
    collector = MemoryCollector(Scope.parse("host"), Roots())
    blocks = []
    for _ in range(SAMPLES):
        blocks.append(filled(8 * MIB))
        before, reading, after = used(), value(collector, "usage_bytes"), used()
        assert min(before, after) * 0.98 <= reading <= max(before, after) * 1.02
    for block in blocks:
        block.close()


def filled(size_bytes: int) -> mmap.mmap:
    block = mmap.mmap(-1, size_bytes)
    for place in range(0, size_bytes, 4096):
        block[place] = 1
    return block


def used() -> int:
    """Return MemTotal - MemAvailable. Source: proc_meminfo(5)."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return (int(fields["MemTotal"].split()[0]) - int(fields["MemAvailable"].split()[0])) * 1024


@pytest.mark.skipif(not is_root(), reason="making network namespaces needs root")
def test_network_rates_are_the_bytes_that_were_sent() -> None:
    """Over a veth pair between two network namespaces, each of which sees its own end only."""
    with veth_pair() as (near, far), process_in(far, RECEIVER) as receiver, process_in(near, SENDER) as sender:
        sent_at, received_at = Times(), Times()
        sending = NetworkCollector((), Roots(proc=f"/proc/{sender.pid}"), clock=sent_at)
        receiving = NetworkCollector((), Roots(proc=f"/proc/{receiver.pid}"), clock=received_at)
        readings(receiving, "receive_bytes_per_second")
        received = 0.0

        def step() -> None:
            nonlocal received
            answer(sender, "500")
            received += value(receiving, "usage_bytes_per_second") * received_at.seconds

        sent = summed(sending, "transmit_bytes_per_second", sent_at, step)

        assert sent == pytest.approx(SAMPLES * 500 * PACKET_BYTES, rel=0.02)
        assert received == pytest.approx(SAMPLES * 500 * PACKET_BYTES, rel=0.02)


@contextlib.contextmanager
def loop_device(file: Path) -> Iterator[str]:
    """Make a block device of *file*, that nobody else writes to."""
    if shutil.which("losetup") is None:
        pytest.skip("losetup is not installed")
    file.write_bytes(bytes(64 * MIB))
    made = subprocess.run(["losetup", "-f", "--show", str(file)], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no loop device can be made: {made.stderr}")
    try:
        yield made.stdout.strip()
    finally:
        subprocess.run(["losetup", "-d", made.stdout.strip()], check=False)


@pytest.mark.skipif(not is_root(), reason="making block devices needs root")
@pytest.mark.parametrize("direction", ["read", "write"])
def test_disk_rates_are_the_bytes_that_were_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direction: str
) -> None:
    """On a device of the test's own, past the page cache; loop devices are left out otherwise."""
    monkeypatch.setattr(disk, "_LEFT_OUT", re.compile(rb"ram"))
    times = Times()
    block = mmap.mmap(-1, 2 * MIB)  # O_DIRECT wants memory aligned to pages
    with loop_device(tmp_path / "image") as device:
        fd = os.open(device, os.O_RDWR | os.O_DIRECT)
        try:
            collector = DiskCollector(Roots(), clock=times)
            field = f"{direction}_bytes_per_second"
            name = f"disk:{Path(device).name}.{field}"
            sample(collector)
            moved = 0.0
            for index in range(SAMPLES):
                offset = (index % 32) * 2 * MIB
                assert (os.preadv if direction == "read" else os.pwritev)(fd, [block], offset) == 2 * MIB
                rate = sample(collector)[name]
                assert isinstance(rate, float)
                moved += rate * times.seconds
        finally:
            os.close(fd)

    assert moved == pytest.approx(SAMPLES * 2 * MIB, rel=0.02)


@pytest.mark.skipif(not is_root(), reason="making cgroups needs root")
def test_the_memory_of_a_cgroup_is_what_its_process_was_told_to_hold() -> None:
    with new_group("memory") as group:
        group.limit_memory(512 * MIB)
        with child_in(group) as child:
            collector = MemoryCollector(Scope.parse(f"pid:{child.pid}"), Roots())
            before = value(collector, "usage_bytes")
            for index in range(1, SAMPLES + 1):
                child.do("hold(8)")
                grown = value(collector, "usage_bytes") - before
                assert grown == pytest.approx(index * 8 * MIB, rel=0.02, abs=MIB)
