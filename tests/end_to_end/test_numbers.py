"""Readings of a real sampler against what the kernel counted for the process that really made the load."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import shm_monitor
from tests.support.cgroups import Child, child_in, top_of
from tests.support.host_trees import is_root, ticks
from tests.support.load_cgroup import group_of_all, sampler, snapshots
from tests.support.load_sender import PACKET_BYTES
from tests.support.network_namespaces import RECEIVER, answer, process_in, veth_pair
from tests.support.surroundings import child_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shm_monitor.snapshot.structs import Snapshot
    from shm_monitor.worker.reader import Reader

pytestmark = pytest.mark.processes

MIB = 1 << 20
HELD_MB = 500
INTERVAL_SECONDS = 0.5
"""Half a second is 100 ticks of two cores: one tick more or less at the edge of a single sample is 1 %."""
RATE_FIELDS = ("usage_bytes_per_second", "receive_bytes_per_second", "transmit_bytes_per_second")


class Scoped(NamedTuple):
    """A child in a cgroup of 1 GB and one core, and the reader of a sampler whose scope that is."""

    child: Child
    reader: Reader


class Span(NamedTuple):
    """One sample: what it says of the cgroup of one core and of the host, percent, and what is true."""

    seconds: float
    cpu: float
    cpu_truth: float
    host: float
    host_truth: float


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
    """Against the run time that the scheduler counts for its threads, and the ticks of /proc/stat for the host.

    Where others keep the host so busy that it has less left than the one core of the cgroup, the host is the truth.
    """
    scoped.child.do("spin()")
    spans = list(spans_of(scoped, 6))
    weights = [span.seconds for span in spans]

    assert spans[0].cpu == pytest.approx(spans[0].cpu_truth, abs=4), "the first whole interval after the start"
    assert weighted([span.cpu for span in spans], weights) == pytest.approx(
        weighted([span.cpu_truth for span in spans], weights), rel=0.02
    )
    assert weighted([span.host for span in spans], weights) == pytest.approx(
        weighted([span.host_truth for span in spans], weights), abs=2
    )


@pytest.mark.slow
@pytest.mark.skipif(not is_root(), reason="making network namespaces needs root")
def test_bytes_that_a_process_sends_are_counted_within_two_samples(name: str) -> None:
    """The sampler and its owner, which sends, live in a network namespace; the reader is outside of it."""
    with (
        veth_pair() as (near, far),
        process_in(far, RECEIVER),
        sender_in(near, name) as sender,
        shm_monitor.attach(name) as reader,
    ):
        first = next(snapshots(reader, 1))
        for packets in (1000, 3000, 2000):
            answer(sender, str(packets))
            last = list(snapshots(reader, 2))[-1]
        counted = transmitted_bytes(sender.pid)
        moved = {field: moved_bytes(reader, field, first, last) for field in RATE_FIELDS}

    assert last.network.interfaces["cable0"].transmit_bytes_count == counted
    assert moved["transmit_bytes_per_second"] == pytest.approx(6000 * PACKET_BYTES, rel=0.05)
    assert moved["usage_bytes_per_second"] == pytest.approx(6000 * PACKET_BYTES, rel=0.05)
    assert moved["receive_bytes_per_second"] < 1000, "nothing but the answer to an ARP request"


def moved_bytes(reader: Reader, field: str, first: Snapshot, last: Snapshot) -> float:
    """Return what the rate *field* makes of the time after *first* until *last*."""
    column = f"network.{field}"
    history = reader.history([column], since=first.sequence - 1)
    count = last.sequence - first.sequence
    spans = itertools.pairwise(history.times[: count + 1])
    rates = history.columns[column][1 : count + 1]
    return sum(known(rate) * (end - start) for rate, (start, end) in zip(rates, spans, strict=True))


@contextlib.contextmanager
def sender_in(namespace: str, name: str) -> Iterator[subprocess.Popen[str]]:
    """Run tests/support/load_sender.py in a network namespace; its sampler runs."""
    program = [sys.executable, "-P", "-m", "tests.support.load_sender", name, "10.123.0.2", "cable0"]
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


def spans_of(scoped: Scoped, count: int) -> Iterator[Span]:
    """Yield what *count* samples say of the time since the sample before, and what the kernel counted meanwhile."""
    before: Count | None = None
    # The newest one there is may be as old as an interval, and so tells of the time before.
    for snapshot in itertools.islice(snapshots(scoped.reader, 100), 1, None):
        now = counted_now(scoped.child.pid, snapshot)
        if before is not None and now.covers_the_same(before):
            count -= 1
            yield span_between(before, now, snapshot)
        if not count:
            return
        before = now
    pytest.skip("this machine lets a reader wait for longer than 5 ms in nearly every half second")


class Count(NamedTuple):
    """What the kernel had counted soon after a sample: seconds that a process ran, ticks of the host."""

    sequence: int
    seconds: float
    seconds_after_sample: float
    ran: float
    ticks: list[int]

    def covers_the_same(self, before: Count) -> bool:
        """Return whether the time between two counts is the one between their samples, but for 1 % of 0.5 s."""
        later = self.seconds_after_sample - before.seconds_after_sample
        return self.sequence == before.sequence + 1 and abs(later) < 0.005


def span_between(before: Count, now: Count, snapshot: Snapshot) -> Span:
    seconds, ran = now.seconds - before.seconds, now.ran - before.ran
    passed = [one - then for one, then in zip(now.ticks, before.ticks, strict=True)]
    cores = sum(passed) / seconds / os.sysconf("SC_CLK_TCK")
    host = 1 - (passed[3] + passed[4]) / sum(passed)
    is_host = (1 - host) * cores < 1 - ran / seconds
    return Span(
        seconds,
        known(snapshot.cpu.cpu_percent),
        100 * host if is_host else 100 * ran / seconds,
        known(snapshot.cpu.host_cpu_percent),
        100 * host,
    )


def counted_now(pid: int, snapshot: Snapshot) -> Count:
    """Count after *snapshot*: the time, the seconds that *pid* ran and the ticks of the host, read without a pause."""
    while True:
        began, unix_time = time.monotonic(), time.time()
        counted = run_seconds(pid), ticks()
        if time.monotonic() - began < 0.003:  # 1 ms on a machine that does not run others meanwhile
            return Count(snapshot.sequence, began, unix_time - snapshot.sampled_at, *counted)


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
