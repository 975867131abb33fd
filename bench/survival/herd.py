"""A herd: caches in one cgroup, what they were asked for and gave, and usage all the while."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

import shm_monitor as sm
from bench.survival.scenario import Run
from bench.survival.stage import MIB, module
from tests.support.load_cgroup import memory_group, sampler
from tests.support.surroundings import child_environment

GROUP_MB = 1024
SECONDS = 120.0
KILL_AFTER, JOIN_AFTER = 0.25, 0.5  # of the seconds
LOOK_SECONDS = 0.02
TRACE_SECONDS = 0.5
BEFORE_SECONDS = 0.2  # usage when a round began is the highest so long before the first answer to it
END_SECONDS = 1.0  # a round that ends later is not counted: caches that are through go with all that they hold
WITHIN = (0.85, 1.0)  # of the target, usage after a round


class Given(NamedTuple):
    """What one cache says of one request."""

    at: float
    pid: int
    round_number: int
    asked_bytes: int
    given_bytes: int


class Round(NamedTuple):
    """One round: what usage was over the target when it began, what was asked and given, and usage after it."""

    deficit_bytes: float
    asked_bytes: int
    given_bytes: int
    after_bytes: int


class Member:
    """One process of a herd, and what it has said."""

    def __init__(self, path: Path, name: str, kind: str, seconds: float) -> None:
        """Start a cache of *kind* in the cgroup at *path*, and wait until it is ready."""
        enter = f'echo 1000 > /proc/self/oom_score_adj && echo $$ > {path}/cgroup.procs && exec "$0" "$@"'
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", enter, *module("bench.survival.cache", kind, seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(SHM_MONITOR_NAME=name),
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin, self._stdout = self.process.stdin, self.process.stdout
        self._listener = threading.Thread(target=self._listen)
        self._is_killed_by_us = False
        self.hits = 0
        self.given: list[Given] = []
        assert self._stdout.readline() == "ready\n"

    def go(self, limit_bytes: int = 0) -> None:
        """Let it begin."""
        self._stdin.write(f"{limit_bytes}\n")
        self._stdin.flush()
        self._listener.start()

    def kill(self) -> None:
        """End it now."""
        self._is_killed_by_us = True
        self.process.kill()

    def close(self) -> bool:
        """Wait for its end; say whether the kernel ended it."""
        if self._listener.ident is not None:
            self._listener.join()
        self._stdin.close()
        self._stdout.close()
        return self.process.wait() != 0 and not self._is_killed_by_us

    def _listen(self) -> None:
        for line in self._stdout:
            word, *rest = line.split()
            if word == "hits":
                self.hits = int(rest[0])
            elif len(rest) == len(Given._fields):  # else killed in the middle of it
                self.given.append(Given(float(rest[0]), *map(int, rest[1:])))


class Herd:
    """The members in one cgroup with its sampler, and usage while they run."""

    def __init__(self, path: Path, name: str, seconds: float) -> None:
        """Make an empty one, that runs for *seconds*."""
        self._path, self._name, self.seconds = path, name, seconds
        self._usage_file = next(file for file in map(path.joinpath, USAGE_FILES) if file.exists())
        self.members: list[Member] = []
        self.usage: list[tuple[float, int]] = []
        self.began = 0.0

    def start(self, kind: str, seconds: float) -> Member:
        """Start one more."""
        self.members.append(Member(self._path, self._name, kind, seconds))
        return self.members[-1]

    def go(self, target_bytes: float) -> None:
        """Let all begin; together they may hold up to *target_bytes* from now on."""
        share_bytes = (target_bytes - self._usage_bytes()) / len(self.members)
        for one in self.members:
            one.go(int(share_bytes))
        self.began = time.monotonic()

    def moments(self) -> Iterator[float]:
        """Yield the seconds since the beginning every LOOK_SECONDS until all have ended; usage is written down."""
        while any(one.process.poll() is None for one in self.members):
            now = time.monotonic()
            self.usage.append((now, self._usage_bytes()))
            yield now - self.began
            time.sleep(LOOK_SECONDS)

    def rounds(self, target_bytes: float) -> list[Round]:
        """Return the rounds: usage after one is the first reading once the last of the asked has answered."""
        by_number: dict[int, list[Given]] = {}
        for given in sorted(given for one in self.members for given in one.given):
            by_number.setdefault(given.round_number, []).append(given)
        return [one for answers in by_number.values() if (one := self._round(answers, target_bytes)) is not None]

    def _round(self, answers: list[Given], target_bytes: float) -> Round | None:
        began, ended = answers[0].at, answers[-1].at
        before = max((size for at, size in self.usage if began - BEFORE_SECONDS <= at < began), default=0)
        after = next((size for at, size in self.usage if at > ended), 0)
        if not before or not after or ended > self.began + self.seconds - END_SECONDS:
            return None
        asked, given = sum(one.asked_bytes for one in answers), sum(one.given_bytes for one in answers)
        return Round(max(before - target_bytes, 0.0), asked, given, after)

    def _usage_bytes(self) -> int:
        return int(self._usage_file.read_text())


USAGE_FILES = ("memory.current", "memory.usage_in_bytes")  # v2, v1


@contextlib.contextmanager
def _herd(seconds: float, settings: dict[str, object]) -> Iterator[tuple[Herd, sm.Reader]]:
    with memory_group(GROUP_MB) as group, sampler(**{"scope": group.name, **settings}) as manager:
        herd = Herd(group.path, manager.name, seconds)
        try:
            with sm.attach(manager.name) as reader:
                yield herd, reader
        finally:
            for one in herd.members:
                one.kill()
                one.close()


def run(
    kinds: Sequence[str],
    *,
    kill: bool = False,
    join: bool = False,
    is_drawn: bool = True,
    seconds: float = SECONDS,
    settings: dict[str, object] | None = None,
) -> Run:
    """Run a herd of *kinds* beside a sampler of the default settings, or of those given.

    Args:
        kinds: of each cache.
        kill: after a quarter of the time kill the first one that is asked, before it can answer.
        join: after half of the time start one more of the first kind.
        is_drawn: keep how usage went.
        seconds: that each looks up for.
        settings: of the sampler.
    """
    with _herd(seconds, settings or {}) as (herd, reader):
        (limit,) = [one for one in reader.snapshot().limits if one.limit == "memory:0"]
        target_bytes = limit.target or 0.0
        for kind in kinds:
            herd.start(kind, seconds)
        herd.go(target_bytes)
        for moment in herd.moments():
            if kill and moment > KILL_AFTER * seconds:
                kill = not _kill_asked(herd, reader)
            if join and moment > JOIN_AFTER * seconds:
                join = False
                herd.start(kinds[0], seconds * (1 - JOIN_AFTER)).go()
        killed = sum(one.close() for one in herd.members)
        found = _judged(herd, target_bytes, killed)
        return found if is_drawn else msgspec.structs.replace(found, trace=[])


def _kill_asked(herd: Herd, reader: sm.Reader) -> bool:
    """Kill one that is asked; False where nobody is."""
    asked = {one.pid for one in reader.snapshot().present if one.request_bytes}
    found = [one for one in herd.members if one.process.pid in asked]
    for one in found[:1]:
        one.kill()
    return bool(found)


def _judged(herd: Herd, target_bytes: float, killed: int) -> Run:
    rounds = herd.rounds(target_bytes)
    after = [one.after_bytes / target_bytes for one in rounds]
    numbers = {
        "killed": killed,
        "hits": sum(one.hits for one in herd.members),
        "rounds": len(rounds),
        "within": sum(WITHIN[0] <= one <= WITHIN[1] for one in after),
        "deficit_mb": sum(one.deficit_bytes for one in rounds) / MIB,
        "asked_mb": sum(one.asked_bytes for one in rounds) / MIB,
        "given_mb": sum(one.given_bytes for one in rounds) / MIB,
        "after_least": min(after, default=0.0),
        "after_most": max(after, default=0.0),
        "peak": max(size for _, size in herd.usage) / (GROUP_MB * MIB),
    }
    every = round(TRACE_SECONDS / LOOK_SECONDS)
    trace = [(round(at - herd.began, 1), round(size / MIB, 1)) for at, size in herd.usage[::every]]
    kept = {name: round(float(number), 3) for name, number in numbers.items()}
    return Run("killed" if killed else "finished", str(killed), herd.seconds, trace, kept)
