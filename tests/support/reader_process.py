"""Workers that check every answer: ``python -m tests.support.reader_process MODE NAME [SECONDS]``.

``follow``: ask two questions on and on and say each change of an answer with the time around the call, until standard
input ends. ``watch``: do everything that a worker does, until standard input ends. ``read``: read samples as fast as
possible for so many seconds. All end with a line of counts.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from shm_monitor.errors import MonitorError
from shm_monitor.worker.attaching import attach
from shm_monitor.worker.reader import Reader

WAIT_SECONDS = 30.0
BURST = 50  # questions between two looks at everything else
PAUSE_SECONDS = 0.0005  # a worker works, too; without a pause four of them keep a dying sampler from the CPU


class Answer(NamedTuple):
    """One change of an answer: the question, the new answer, and the monotonic clock around the call."""

    question: str
    answer: bool
    before_ns: int
    after_ns: int


class ReaderProcess:
    """One such worker, seen from a test.

    Attributes:
        answers: every change so far.
        counts: what it counted, once it has ended.
    """

    def __init__(self, mode: str, name: str, seconds: float = 0.0) -> None:
        """Start it."""
        self.answers: list[Answer] = []
        self.counts: Counter[str] = Counter()
        self._rest = b""
        from tests.support.children import PYTHON  # not in the worker, which loads neither numpy nor pytest
        from tests.support.surroundings import child_environment

        self._process = subprocess.Popen(
            [*PYTHON, "-m", "tests.support.reader_process", mode, name, str(seconds)],
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_for(self, count: int) -> None:
        """Wait until it has said *count* changes."""
        deadline = time.monotonic() + WAIT_SECONDS
        while len(self.answers) < count:
            left = deadline - time.monotonic()
            assert left > 0, f"{len(self.answers)} answers of {count}: {self.answers[-4:]}"
            self._read(left)

    def finish(self) -> Counter[str]:
        """Let it end, or wait for its end; return its counts."""
        process = self._process
        assert process.stdin is not None
        process.stdin.close()
        deadline = time.monotonic() + WAIT_SECONDS
        while not self.counts:
            self._read(deadline - time.monotonic())
        assert process.wait(WAIT_SECONDS) == 0
        return self.counts

    def close(self) -> None:
        """End it whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _read(self, seconds: float) -> None:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        if not select.select([fd], [], [], max(seconds, 0.0))[0]:
            return
        data = os.read(fd, 65536)
        assert data, f"the reader ended: {self._process.wait(WAIT_SECONDS)}"
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in map(json.loads, lines):
            if "counts" in line:
                self.counts = Counter(line["counts"])
            else:
                self.answers.append(Answer(**line))


def answers_of(reader: Reader) -> tuple[bool, int, str]:
    """Run in a worker: return what *reader* answers there."""
    return reader.should_prune(), reader.snapshot().sequence, reader.status().state


def is_whole(reader: Reader, counts: Counter[str]) -> int:
    """Take a snapshot, check that every number in it belongs to its sample; return the number of the sample."""
    snapshot = reader.snapshot()
    number = snapshot.sequence
    wanted = {f"{group}.m{index}_bytes": number * (index + 1.0) for index, group in enumerate(["cpu", *["memory"] * 7])}
    rolled = snapshot.rolled["cpu.m0_bytes"]
    good = snapshot.other == wanted and (rolled.mean, rolled.maximum, rolled.slope) == (number, number + 0.5, -number)
    counts["snapshots"] += 1
    counts["torn"] += not good
    counts["degraded"] += snapshot.degraded
    return number


def follow(name: str) -> Counter[str]:
    """Ask until standard input ends; say every change of an answer."""
    counts: Counter[str] = Counter()
    handler = _WarningCounter(counts)
    logging.getLogger("shm_monitor").addHandler(handler)
    always = attach(name, on_stale="always", timeout=10.0)
    never = attach(name, watch=["cpu"], on_stale="never", timeout=10.0)
    questions = (("always", always.should_prune), ("never", never.should_prune))
    answers: dict[str, bool] = {}
    newest = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        for _ in range(BURST):
            for label, ask in questions:
                _ask(label, ask, answers)
        counts["calls"] += BURST
        number = is_whole(always, counts)
        counts["went_back"] += number < newest
        newest = number
        time.sleep(PAUSE_SECONDS)
    return counts


def read(name: str, seconds: float) -> Counter[str]:
    """Read samples for *seconds*; count those that are new."""
    counts: Counter[str] = Counter()
    reader = attach(name, timeout=10.0)
    deadline = time.monotonic() + seconds
    newest = 0
    while time.monotonic() < deadline:
        for _ in range(BURST):
            number = is_whole(reader, counts)
            counts["new"] += number > newest
            counts["went_back"] += number < newest
            newest = number
    return counts


def watch(name: str) -> Counter[str]:
    """Use everything until standard input ends; count deaths, and errors, of which there should be none."""
    counts: Counter[str] = Counter()
    logging.getLogger("shm_monitor").addHandler(logging.NullHandler())
    reader = attach(name, on_stale="always", timeout=10.0)
    is_dead = False
    while not select.select([sys.stdin], [], [], 0)[0]:
        was_dead, is_dead = is_dead, reader.should_prune()
        counts["deaths"] += is_dead and not was_dead
        counts["calls"] += 1
        try:
            reader.snapshot()
            reader.history(seconds=1.0)
            reader.status()
            reader.explain()
        except MonitorError:
            counts["errors"] += 1
        time.sleep(0.005)
    return counts


class _WarningCounter(logging.Handler):
    def __init__(self, counts: Counter[str]) -> None:
        super().__init__(logging.WARNING)
        self._counts = counts

    def emit(self, record: logging.LogRecord) -> None:
        self._counts["warnings"] += 1


def _ask(label: str, ask: Callable[[], bool], answers: dict[str, bool]) -> None:
    before_ns = time.monotonic_ns()
    answer = ask()
    if answers.get(label) is not answer:
        answers[label] = answer
        _say({"question": label, "answer": answer, "before_ns": before_ns, "after_ns": time.monotonic_ns()})


def _say(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(mode: str, name: str, seconds: str = "0") -> None:
    """Run one mode, then say the counts."""
    counts = read(name, float(seconds)) if mode == "read" else {"follow": follow, "watch": watch}[mode](name)
    _say({"counts": counts})


if __name__ == "__main__":
    main(*sys.argv[1:])
