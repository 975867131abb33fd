"""Where a job runs: a memory cgroup of its own, with a sampler that looks at it, and a neighbour in the same cgroup."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Self

import shm_monitor as sm
from bench.survival.scenario import Ended, Run
from tests.support.cgroups import Group
from tests.support.load_cgroup import memory_group, sampler
from tests.support.surroundings import child_environment
from tests.support.waiting import wait_until

MIB = 1 << 20
JOB_SECONDS = 300.0  # long, for a machine that does other things
TRACE_SECONDS = 0.1
CALM_SECONDS = 60.0
BROKEN_STATUS = 3  # what a job exits with when its pool has lost a process
KILLED = (-9, 137)


def module(name: str, *arguments: object) -> list[str]:
    """Return the command that runs the module *name* with this Python: a scenario's own jobs."""
    return [sys.executable, "-P", "-m", name, *map(str, arguments)]


def run(
    job: Sequence[str],
    *,
    group_mb: int = 512,
    beside: Sequence[Sequence[str]] = (),
    settings: dict[str, object] | None = None,
    environment: dict[str, str] | None = None,
    longest_seconds: float = JOB_SECONDS,
) -> Run:
    """Run *job* in a cgroup of its own, and say how it ended.

    The last line of its standard output is ``RESULT SECONDS``, and further numbers as ``NAME=NUMBER``.

    Args:
        job: a command; the kernel takes its processes first when the cgroup is full.
        group_mb: of the cgroup.
        beside: commands that run in the same cgroup as long as the job does.
        settings: of the sampler: 10 Hz and two seconds of observation, and what is given here.
        environment: for all commands, beside the name of the sampler.
        longest_seconds: then the job is ended, and was late.
    """
    with _ground(group_mb, settings or {}) as (group, name):
        given = child_environment(SHM_MONITOR_NAME=name, OPENBLAS_NUM_THREADS="1", **(environment or {}))
        with contextlib.ExitStack() as stack:
            for command in beside:
                stack.enter_context(_started(group, command, given, first_victim=False))
            process = stack.enter_context(_started(group, job, given, first_victim=True))
            with _traced(group) as trace:
                said, ended = _wait(process, group, longest_seconds)
    return _judged(said, ended, trace)


class Grounds:
    """Cgroups with their samplers that are kept for the next run, so that not each one pays for the start of a sampler.

    ``with Grounds(): ...`` around runs, from any number of threads: as many are made as are in use at once.
    """

    current: Grounds | None = None

    def __init__(self) -> None:
        self._free: dict[str, list[tuple[Group, str]]] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        Grounds.current = self
        return self

    def __exit__(self, *_: object) -> None:
        Grounds.current = None
        self._stack.close()

    @contextlib.contextmanager
    def lend(self, group_mb: int, settings: dict[str, object]) -> Iterator[tuple[Group, str]]:
        """Lend a cgroup and the name of its sampler; they are free again once the cgroup is empty and calm."""
        free = self._free.setdefault(repr((group_mb, sorted(settings.items()))), [])
        try:
            group, name = free.pop()
        except IndexError:
            group, name = self._stack.enter_context(_new_ground(group_mb, settings))
        yield group, name
        if group.version == 1:
            (group.path / "memory.force_empty").write_text("0\n")  # of files that only this cgroup has read
        with sm.attach(name, watch=["memory"]) as reader:
            if sm.calm(CALM_SECONDS, reader=reader):
                free.append((group, name))


def _ground(group_mb: int, settings: dict[str, object]) -> contextlib.AbstractContextManager[tuple[Group, str]]:
    return Grounds.current.lend(group_mb, settings) if Grounds.current else _new_ground(group_mb, settings)


@contextlib.contextmanager
def _new_ground(group_mb: int, settings: dict[str, object]) -> Iterator[tuple[Group, str]]:
    watched = {"check_interval": 0.1, "observation_period": 2.0, **settings}
    with memory_group(group_mb) as group, sampler(**{"scope": group.name, **watched}) as manager:
        yield group, manager.name


@contextlib.contextmanager
def _started(
    group: Group, command: Sequence[str], environment: dict[str, str], *, first_victim: bool
) -> Iterator[subprocess.Popen[str]]:
    victim = "echo 1000 > /proc/self/oom_score_adj && " if first_victim else ""
    enter = f'{victim}echo $$ > {group.path}/cgroup.procs && exec "$0" "$@"'
    process = subprocess.Popen(
        ["/bin/sh", "-c", enter, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _wait(process: subprocess.Popen[str], group: Group, seconds: float) -> tuple[str, Ended]:
    try:
        said = process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        return "", "late"
    finally:
        _kill_all(group)
    if process.returncode in KILLED:
        return said, "killed"
    if process.returncode == BROKEN_STATUS:
        return said, "broken"
    return said, "finished" if process.returncode == 0 else "failed"


def _kill_all(group: Group) -> None:
    """End what is left in *group*: neighbours, and processes of a pool whose parent was killed."""
    for pid in (group.path / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    wait_until(lambda: not (group.path / "cgroup.procs").read_text())


@contextlib.contextmanager
def _traced(group: Group) -> Iterator[list[tuple[float, float]]]:
    """Read what *group* uses every TRACE_SECONDS, in a thread, until the block ends."""
    usage = group.path / ("memory.usage_in_bytes" if group.version == 1 else "memory.current")
    trace: list[tuple[float, float]] = []
    is_over = threading.Event()
    began = time.monotonic()

    def read() -> None:
        while not is_over.wait(TRACE_SECONDS):
            trace.append((round(time.monotonic() - began, 2), round(int(usage.read_text()) / MIB, 1)))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield trace
    finally:
        is_over.set()
        thread.join()


def _judged(said: str, ended: Ended, trace: list[tuple[float, float]]) -> Run:
    """Return the run that printed *said*; one without a result has not finished."""
    words = said.strip().rpartition("\n")[2].split()
    if ended != "finished":
        return Run(ended, trace=trace)
    if len(words) < 2:
        return Run("failed", trace=trace)
    numbers = {name: float(number) for name, _, number in (word.partition("=") for word in words[2:])}
    return Run(ended, words[0], float(words[1]), trace, numbers)
