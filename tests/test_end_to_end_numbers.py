"""Readings of a real sampler against what the kernel counted for the process that really made the load."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import shm_monitor
from tests.conftest import child_environment
from tests.host_trees import is_root
from tests.load_cgroup import group_of_all, sampler, snapshots
from tests.load_sender import PACKET_BYTES
from tests.test_cgroup_real import Child, child_in, top_of
from tests.test_collectors_accuracy import RECEIVER, answer, process_in, ticks, veth_pair

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shm_monitor.reader import Reader
    from shm_monitor.snapshot import Snapshot

MIB = 1 << 20
HELD_MB = 500
INTERVAL_SECONDS = 0.5
"""Half a second is 100 ticks of two cores: one tick more or less at the edge of a single sample is 1 %."""
RATE_FIELDS = ("usage_bytes_per_second", "receive_bytes_per_second", "transmit_bytes_per_second")


class Scoped(NamedTuple):
    """A child in a cgroup of 1 GB and one core, and the reader of a sampler whose scope that is."""

    child: Child
    reader: Reader


@pytest.fixture(scope="module")
def scoped() -> Iterator[Scoped]:
    if not is_root():
        pytest.skip("making cgroups needs root")
    accounting = ["cpuacct"] if top_of("cpuacct") else []  # a controller of its own in v1 only
    with contextlib.ExitStack() as stack:
        groups = stack.enter_context(group_of_all("memory", "cpu", *accounting))
        groups["memory"].limit_memory(1024 * MIB)
        groups["cpu"].limit_cpu(1.0)
        child = stack.enter_context(child_in(*dict.fromkeys(groups.values())))
        manager = stack.enter_context(sampler(scope=groups["cpu"].name, check_interval=INTERVAL_SECONDS))
        yield Scoped(child, manager.reader)


def test_500_mb_that_a_process_holds_are_500_mb_in_the_next_sample(scoped: Scoped) -> None:
    before, resident = memory_usage(next(snapshots(scoped.reader, 1))), resident_bytes(scoped.child.pid)
    scoped.child.do(f"hold({HELD_MB})")
    snapshot = next(snapshots(scoped.reader, 1))
    grown = memory_usage(snapshot) - before

    assert grown == pytest.approx(HELD_MB * MIB, rel=0.02)
    assert grown == pytest.approx(resident_bytes(scoped.child.pid) - resident, rel=0.02)
    assert snapshot.memory.capacity_bytes == 1024 * MIB


def test_a_core_that_a_process_burns_is_seen_within_two_samples(scoped: Scoped) -> None:
    """Against the run time that the scheduler counts for its threads, and the ticks of /proc/stat for the host."""
    scoped.child.do("spin()")
    shares, truths, host_shares, host_truths, seconds, host_ticks = [], [], [], [], [], []
    before: tuple[float, float, list[int]] | None = None
    for snapshot in snapshots(scoped.reader, 8):
        now = (snapshot.sampled_at, run_seconds(scoped.child.pid), ticks())
        if before is not None:
            passed = [one - then for one, then in zip(now[2], before[2], strict=True)]
            seconds.append(now[0] - before[0])
            truths.append(100 * (now[1] - before[1]) / seconds[-1])
            host_ticks.append(sum(passed))
            host_truths.append(100 * (sum(passed) - passed[3] - passed[4]) / sum(passed))
            shares.append(known(snapshot.cpu.cpu_percent))
            host_shares.append(known(snapshot.cpu.host_cpu_percent))
        before = now

    assert shares[0] == pytest.approx(truths[0], abs=4), "the second sample after the start"
    assert weighted(shares, seconds) == pytest.approx(weighted(truths, seconds), rel=0.02)
    assert weighted(host_shares, host_ticks) == pytest.approx(weighted(host_truths, host_ticks), abs=2)


@pytest.mark.skipif(not is_root(), reason="making network namespaces needs root")
def test_bytes_that_a_process_sends_are_counted_within_two_samples(name: str) -> None:
    """The sampler and its owner, which sends, live in a network namespace; the reader is outside of it."""
    with veth_pair() as (near, far), process_in(far, RECEIVER), sender_in(near, name) as sender:
        with shm_monitor.attach(name) as reader:
            last = next(snapshots(reader, 1))
            moved = dict.fromkeys(RATE_FIELDS, 0.0)
            for packets in (0, 1000, 3000, 0, 2000):
                if packets:
                    answer(sender, str(packets))
                for snapshot in snapshots(reader, 2):
                    assert snapshot.sequence == last.sequence + 1
                    for field in RATE_FIELDS:
                        moved[field] += known(getattr(snapshot.network, field)) * (
                            snapshot.sampled_at - last.sampled_at
                        )
                    last = snapshot
            counted = transmitted_bytes(sender.pid)

    assert last.network.interfaces["cable0"].transmit_bytes_count == counted
    assert moved["transmit_bytes_per_second"] == pytest.approx(6000 * PACKET_BYTES, rel=0.02)
    assert moved["usage_bytes_per_second"] == pytest.approx(6000 * PACKET_BYTES, rel=0.02)
    assert moved["receive_bytes_per_second"] < 1000, "nothing but the answer to an ARP request"


@contextlib.contextmanager
def sender_in(namespace: str, name: str) -> Iterator[subprocess.Popen[str]]:
    """Run tests/load_sender.py in a network namespace; its sampler runs."""
    program = [sys.executable, "-P", "-m", "tests.load_sender", name, "10.123.0.2", "cable0"]
    with subprocess.Popen(
        ["ip", "netns", "exec", namespace, *program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
    ) as process:
        try:
            assert answer(process) == "ready"
            yield process
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(10) == 0
        finally:
            process.kill()


def known(value: float | None) -> float:
    assert value is not None
    return value


def weighted(values: Sequence[float], weights: Sequence[float]) -> float:
    """Return the mean of *values*, each for its part of the whole."""
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)


def memory_usage(snapshot: Snapshot) -> int:
    assert snapshot.memory.usage_bytes is not None
    return snapshot.memory.usage_bytes


def resident_bytes(pid: int) -> int:
    """Return what *pid* holds in memory. Source: proc_pid_status(5)."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


def run_seconds(pid: int) -> float:
    """Return the seconds that the threads of *pid* ran. Source: Documentation/scheduler/sched-stats.rst."""
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def transmitted_bytes(pid: int) -> int:
    """Return what left by cable0 in the namespace of *pid*. Source: proc_pid_net(5)."""
    (line,) = [line for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines() if "cable0:" in line]
    return int(line.partition(":")[2].split()[8])
