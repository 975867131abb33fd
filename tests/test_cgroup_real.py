"""Real cgroups, made by the test and removed by it: what a process may really use, on the kernel of this host."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from shm_monitor.collectors.cgroup import Cgroups, Scope
from shm_monitor.collectors.cpu import CpuCollector
from shm_monitor.collectors.files import Roots
from shm_monitor.collectors.memory import MemoryCollector
from tests.host_trees import is_root, readings, sample, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(not is_root(), reason="making cgroups needs root")

MIB = 1 << 20
CHILD = """
import mmap, os, sys, threading
blocks = []
def hold(mib):
    block = mmap.mmap(-1, mib << 20)
    for place in range(0, len(block), 4096):
        block[place] = 1
    blocks.append(block)
def cache(path):
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass
def shm(path):
    with open(path, "wb") as file:
        file.write(b"x" * (50 << 20))
def spin():
    def turn():
        while True:
            pass
    threading.Thread(target=turn, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


class Group(NamedTuple):
    """A cgroup of one controller, made by the test."""

    path: Path
    version: int
    name: str

    def write(self, v1: str, v2: str, text: object) -> None:
        """Write *text* to the file that this version calls so."""
        (self.path / (v1 if self.version == 1 else v2)).write_text(f"{text}\n")

    def limit_memory(self, limit_bytes: int) -> None:
        self.write("memory.limit_in_bytes", "memory.max", limit_bytes)

    def limit_cpu(self, cores: float) -> None:
        if self.version == 1:
            self.write("cpu.cfs_quota_us", "", round(cores * 100_000))
        else:
            self.write("", "cpu.max", f"{round(cores * 100_000)} 100000")

    def child(self, name: str) -> Group:
        path = self.path / name
        path.mkdir()
        return Group(path, self.version, f"{self.name}/{name}")


@contextlib.contextmanager
def group(controller: str) -> Iterator[Group]:
    """Make a cgroup at the top of the hierarchy of *controller*; it and its children are removed afterwards."""
    tops = Cgroups(Scope("path", path="/"), Roots()).of("") if controller == "" else _tops(controller)
    if not tops:
        pytest.skip(f"no cgroup hierarchy with the controller {controller} is mounted")
    version, top = tops[0]
    name = f"shm-monitor-test-{uuid.uuid4().hex[:8]}"
    path = top / name
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"cgroups cannot be made here: {error}")
    try:
        yield Group(path, version, f"/{name}")
    finally:
        for directory in [*path.glob("*/"), path]:
            _remove(directory)
