"""Cgroups with a limit, samplers that watch them, and workers of tests/support/load_worker.py inside."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from shm_monitor.config.resource import ResourceConfig
from shm_monitor.manager import ResourceManager
from tests.support.cgroups import Group, new_group, top_of
from tests.support.load_worker import Event
from tests.support.surroundings import child_environment, remove_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shm_monitor.snapshot.structs import Snapshot
    from shm_monitor.worker.reader import Reader

MIB = 1 << 20
SWAP_FILES = ("memory.swap.max", "memory.memsw.limit_in_bytes")  # v2, v1


@contextlib.contextmanager
def memory_group(limit_mb: int) -> Iterator[Group]:
    """Make a memory cgroup of *limit_mb* that may not swap its way out.

    Without swap its limits are left alone: in v1 the one on both together hides how often the other is reached.
    """
    has_swap = len(Path("/proc/swaps").read_text().splitlines()) > 1
    with new_group("memory") as group:
        group.limit_memory(limit_mb * MIB)
        for name in SWAP_FILES:
            if has_swap and (group.path / name).exists():
                (group.path / name).write_text(f"{0 if group.version == 2 else limit_mb * MIB}\n")
        yield group


@contextlib.contextmanager
def group_of_all(*controllers: str) -> Iterator[dict[str, Group]]:
    """Make cgroups of one name in the hierarchy of each of *controllers*; a hierarchy that two share has one."""
    name = f"shm-monitor-test-{uuid.uuid4().hex[:8]}"
    made: dict[object, Group] = {}
    with contextlib.ExitStack() as stack:
        for controller in controllers:
            top = top_of(controller)
            if top not in made:
                made[top] = stack.enter_context(new_group(controller, name))
        yield {controller: made[top_of(controller)] for controller in controllers}


@contextlib.contextmanager
def sampler(**settings: object) -> Iterator[ResourceManager]:
    """Run a real sampler process with *settings* under a name of its own."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    try:
        with ResourceManager(ResourceConfig(name=name, **settings)) as manager:  # type: ignore[arg-type]
            yield manager
    finally:
        remove_files(name)


class Life:
    """One worker in a cgroup, from its first line to its last."""

    def __init__(self, group: Group, *arguments: object) -> None:
        enter = f'echo $$ > {group.path}/cgroup.procs && exec "$0" "$@"'
        program = [sys.executable, "-P", "-m", "tests.support.load_worker", *map(str, arguments)]
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", enter, *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self.events: list[Event] = []

    def next(self, *words: str) -> Event:
        """Return the next event that is one of *words*, or the last one of all when the worker ends before."""
        for line in self._stdout:
            if not line.endswith("\n"):
                break  # killed in the middle of it
            self.events.append(Event.parse(line))
            if self.events[-1].word in words:
                break
        return self.events[-1]

    def go(self) -> None:
        """Let the worker begin to leak."""
        self._stdin.write("\n")
        self._stdin.flush()

    def end(self) -> int:
        """Read to the end; return the exit status, minus the signal that ended the worker."""
        self.next()
        return self._process.wait()

    def event(self, word: str) -> Event | None:
        """Return the first event *word*, if there was one."""
        return next((event for event in self.events if event.word == word), None)

    def close(self) -> None:
        """End the worker if it still runs."""
        self._process.kill()
        self._process.wait()
        self._stdin.close()
        self._stdout.close()


@contextlib.contextmanager
def worker_in(group: Group, *arguments: object) -> Iterator[Life]:
    """Run a worker with *arguments* in *group*; it is gone afterwards."""
    life = Life(group, *arguments)
    try:
        yield life
    finally:
        life.close()


def snapshots(reader: Reader, count: int) -> Iterator[Snapshot]:
    """Yield the next *count* samples, each within a millisecond or so of its publication."""
    seen = reader.snapshot().sequence
    deadline = time.monotonic() + 60
    while count:
        snapshot = reader.snapshot()
        if snapshot.sequence != seen:
            seen, count = snapshot.sequence, count - 1
            yield snapshot
        assert time.monotonic() < deadline, "the sampler takes no samples"
        time.sleep(0.001)
