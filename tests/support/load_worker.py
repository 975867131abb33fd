"""A worker that leaks memory and asks whether to stop; the end-to-end tests run it inside a cgroup.

``python -m tests.support.load_worker NAME FIRST_MB MB_PER_SECOND die|free|own``: hold FIRST_MB, wait for a line on
standard input, leak, and once told to prune either leak on until the kernel takes it, or free everything and wait to be
released. With ``own`` it starts the sampler NAME itself, inside its own cgroup as in a container, and then does as with
``free``. Says what happens on standard output, one ``Event`` a line.
"""

from __future__ import annotations

import contextlib
import mmap
import sys
import time
from typing import NamedTuple

import shm_monitor
from shm_monitor.segment.layout import HEAD_OFFSET

MIB = 1 << 20
PAGE_BYTES = mmap.PAGESIZE
TURN_SECONDS = 0.01
BEAT_SECONDS = 0.1
CATCH_UP_SECONDS = 0.1  # a worker that the host gave no CPU for longer goes on at its rate: a jump is no leak


class Event(NamedTuple):
    """What happened, when on the monotonic clock, the newest sample then, MB held, and the reasons given."""

    word: str
    seconds: float
    sequence: int
    held_mb: float
    reasons: str

    @classmethod
    def parse(cls, line: str) -> Event:
        """Return the event that a line spells."""
        word, seconds, sequence, held_mb, reasons = line.split()
        return cls(word, float(seconds), int(sequence), float(held_mb), reasons)


class Load:
    """Anonymous memory that is really there, since each page is written to."""

    def __init__(self) -> None:
        self._blocks: list[mmap.mmap] = []
        self.held_bytes = 0

    def grow_to(self, size_bytes: float) -> None:
        """Hold at least *size_bytes*, to a page."""
        missing = (int(size_bytes) - self.held_bytes) // PAGE_BYTES * PAGE_BYTES
        if missing <= 0:
            return
        block = mmap.mmap(-1, missing)
        self._blocks.append(block)
        for place in range(0, missing, PAGE_BYTES):
            block[place] = 1
        self.held_bytes += missing

    def free(self) -> None:
        """Give everything back to the kernel."""
        for block in self._blocks:
            block.close()
        self._blocks, self.held_bytes = [], 0


class Worker:
    """What a training loop would do, less the training."""

    def __init__(self, reader: shm_monitor.Reader) -> None:
        self._reader = reader
        self._load = Load()
        self._next_beat = 0.0

    def run(self, *, first_mb: float, mb_per_second: float, then: str) -> None:
        """Leak until told, then do as *then* says."""
        self._load.grow_to(first_mb * MIB)
        self._say("ready")
        sys.stdin.readline()
        told, wanted_mb, before = False, first_mb, time.monotonic()
        while True:
            now = time.monotonic()
            wanted_mb += mb_per_second * min(now - before, CATCH_UP_SECONDS)
            before = now
            self._load.grow_to(wanted_mb * MIB)
            if not told and self._reader.should_prune():
                told = True
                self._say("told")
                if then != "die":
                    return self._free_and_wait()
            self._beat()
            time.sleep(TURN_SECONDS)

    def _free_and_wait(self) -> None:
        self._load.free()
        self._say("freed")
        while self._reader.should_prune():
            time.sleep(TURN_SECONDS)
        self._say("released")

    def _beat(self) -> None:
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + BEAT_SECONDS
            self._say("at")

    def _say(self, word: str) -> None:
        sequence = self._reader.view().word(HEAD_OFFSET)
        reasons = "+".join(self._reader.reasons()) or "none"
        print(word, time.monotonic(), sequence, self._load.held_bytes / MIB, reasons, flush=True)


def main() -> None:
    name, first_mb, mb_per_second, then = sys.argv[1:]
    with contextlib.ExitStack() as stack:
        if then == "own":
            stack.enter_context(shm_monitor.ResourceManager(shm_monitor.ResourceConfig(name=name)))
        worker = Worker(shm_monitor.attach(name))
        worker.run(first_mb=float(first_mb), mb_per_second=float(mb_per_second), then=then)


if __name__ == "__main__":
    main()
