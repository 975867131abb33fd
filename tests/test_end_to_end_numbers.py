"""Readings of a real sampler against what the kernel counted for the process that really made the load."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import shm_monitor
from tests.conftest import child_environment
from tests.host_trees import is_root
from tests.load_cgroup import group_of_all, sampler, snapshots
from tests.load_sender import PACKET_BYTES
from tests.test_cgroup_real import Child, child_in
from tests.test_collectors_accuracy import answer, process_in, ticks, veth_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    with contextlib.ExitStack() as stack:
        memory, cpu, accounting = groups = stack.enter_context(group_of_all("memory", "cpu", "cpuacct"))
        memory.limit_memory(1024 * MIB)
        cpu.limit_cpu(1.0)
        child = stack.enter_context(child_in(*dict.fromkeys(groups)))
        manager = stack.enter_context(sampler(scope=cpu.name, check_interval=INTERVAL_SECONDS))
        yield Scoped(child, manager.reader)
