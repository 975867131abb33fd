"""Real cgroups, made by a test and removed by it, and processes that live in them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

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

    def limit_memory(self, limit_bytes: int) -> None:
        """Set the limit of the memory controller."""
        file = "memory.limit_in_bytes" if self.version == 1 else "memory.max"
        (self.path / file).write_text(f"{limit_bytes}\n")

    def limit_cpu(self, cores: float) -> None:
        """Set the quota of the cpu controller in periods of 100 ms, before whatever else is on this machine."""
        quota = str(round(cores * 100_000))
        file, text = ("cpu.cfs_quota_us", quota) if self.version == 1 else ("cpu.max", f"{quota} 100000")
        (self.path / file).write_text(f"{text}\n")
        weight, most = ("cpu.shares", 262144) if self.version == 1 else ("cpu.weight", 10000)
        (self.path / weight).write_text(f"{most}\n")

    def child(self, name: str) -> Group:
        """Make a cgroup below this one."""
        if self.version == 2:
            (self.path / "cgroup.subtree_control").write_text("+memory\n")
        path = self.path / name
        path.mkdir()
        return Group(path, self.version, f"{self.name}/{name}")


def top_of(controller: str) -> tuple[int, Path] | None:
    """Return version and mount point of the hierarchy that has *controller*. Source: fstab(5), cgroups(7)."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, options, *_ = line.split()
        if kind == "cgroup" and controller in options.split(","):
            return 1, Path(point)
        if kind == "cgroup2" and controller in (Path(point) / "cgroup.subtree_control").read_text().split():
            return 2, Path(point)
    return None


@contextlib.contextmanager
def new_group(controller: str, name: str = "") -> Iterator[Group]:
    """Make a cgroup at the top of the hierarchy of *controller*; it and its children are removed afterwards."""
    top = top_of(controller)
    if top is None:
        pytest.skip(f"no mounted cgroup hierarchy offers the controller {controller}")
    name = name or f"shm-monitor-test-{uuid.uuid4().hex[:8]}"
    path = top[1] / name
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"cgroups cannot be made here: {error}")
    try:
        yield Group(path, top[0], f"/{name}")
    finally:
        for directory in [*(each for each in path.iterdir() if each.is_dir()), path]:
            remove(directory)


def remove(path: Path) -> None:
    """Remove the cgroup at *path*, once the processes that were in it are gone."""

    def gone() -> bool:
        with contextlib.suppress(OSError):
            path.rmdir()
        return not path.exists()

    wait_until(gone)


class Child:
    """A Python process in cgroups, that does what it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid
        assert self.say() == "ready"

    def do(self, code: str) -> None:
        """Run one line of *code* there."""
        assert self._process.stdin is not None
        self._process.stdin.write(code + "\n")
        self._process.stdin.flush()
        assert self.say() == "done"

    def answer(self, expression: str) -> str:
        """Return what *expression* is there, on one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"print({expression}, flush=True)\n")
        self._process.stdin.flush()
        answer = self.say()
        assert self.say() == "done"
        return answer

    def kill(self) -> None:
        """End it as the kernel does where memory is short."""
        self._process.kill()
        self._process.wait()

    def say(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextlib.contextmanager
def child_in(*groups: Group) -> Iterator[Child]:
    """Run a child that is in *groups* from its first instruction on."""
    enter = "".join(f"echo $$ > {group.path}/cgroup.procs && " for group in groups)
    command = ["/bin/sh", "-c", f'{enter} exec "$0" "$@"', sys.executable, "-c", CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Child(process)
        finally:
            process.kill()
