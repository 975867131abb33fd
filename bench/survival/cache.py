"""One cache of a herd: ``python -m bench.survival.cache KIND SECONDS``, and the words that it says on standard output.

It says ``ready``, begins with a line that says how many bytes it may hold (which the oracle alone wants to know), and
says ``shed TIME PID ROUND ASKED GIVEN`` for each request, ``hits NUMBER`` at its end.
"""

from __future__ import annotations

import mmap
import os
import random
import sys
import time
from collections.abc import Callable

import shm_monitor as sm

BLOCK_BYTES = 1 << 18
KEYS = 800  # 200 MB
LOOKUPS_PER_SECOND = 44  # eight of them take 88 MB a second while all are empty


class Cache:
    """Blocks by key; the oldest goes first. Each is a mapping of its own: what is dropped is the kernel's at once."""

    def __init__(self) -> None:
        """Begin empty."""
        self.blocks: dict[int, mmap.mmap] = {}
        self.hits = 0
        self.limit_bytes = 0

    def look_up(self, key: int) -> None:
        """Count a hit, or fill the block in."""
        if key in self.blocks:
            self.hits += 1
            return
        block = self.blocks[key] = mmap.mmap(-1, BLOCK_BYTES)
        for at in range(0, BLOCK_BYTES, mmap.PAGESIZE):
            block[at] = 1

    def shed(self, size_bytes: int) -> int:
        """Drop blocks until *size_bytes* are given back or none is left; return how much that was."""
        before = len(self.blocks)
        while self.blocks and (before - len(self.blocks)) * BLOCK_BYTES < size_bytes:
            self.blocks.pop(next(iter(self.blocks))).close()
        return (before - len(self.blocks)) * BLOCK_BYTES


React = Callable[[], None]


def _presented(held: Cache, *, gives: bool = True) -> React:
    """Give back what a request asks for, once; or look at it and give nothing."""
    reader = sm.attach(watch=["memory"], present=True)
    last = None

    def react() -> None:
        nonlocal last
        request = reader.request() if reader.should_prune() else None
        if request is None or request.round_number == last:
            return
        last = request.round_number
        given = _say(held, last, request.size_bytes, request.size_bytes if gives else 0)
        if gives:
            reader.answer(request, given)

    return react


def _ignoring(held: Cache) -> React:
    return _presented(held, gives=False)


def _told_with_all(held: Cache) -> React:
    """Give back what is too much, once per episode: as each does that does not know of the others."""
    reader = sm.attach(watch=["memory"])
    last = 0

    def react() -> None:
        nonlocal last
        episode = reader.episode() if reader.should_prune() else None
        if episode is not None and episode.number != last:
            last, size_bytes = episode.number, reader.shed_bytes()
            _say(held, last, size_bytes, size_bytes)

    return react


def _oracle(held: Cache) -> React:
    def react() -> None:
        held.shed((len(held.blocks) + 1) * BLOCK_BYTES - held.limit_bytes)

    return react


def _plain(_: Cache) -> React:
    return lambda: None


KINDS: dict[str, Callable[[Cache], React]] = {
    "presented": _presented,
    "ignoring": _ignoring,
    "all": _told_with_all,
    "oracle": _oracle,
    "plain": _plain,
}


def _say(held: Cache, number: int, asked_bytes: int, size_bytes: int) -> int:
    given = held.shed(size_bytes)
    print("shed", time.monotonic(), os.getpid(), number, asked_bytes, given, flush=True)
    return given


def main(kind: str, seconds: float) -> None:
    """Serve look-ups of random keys for *seconds*, and do what *kind* does about pressure."""
    held = Cache()
    react = KINDS[kind](held)
    chosen = random.Random(os.getpid())
    print("ready", flush=True)
    held.limit_bytes = int(sys.stdin.readline())
    began = time.monotonic()
    for turn in range(int(seconds * LOOKUPS_PER_SECOND)):
        time.sleep(max(began + turn / LOOKUPS_PER_SECOND - time.monotonic(), 0.0))
        react()
        held.look_up(chosen.randrange(KEYS))
    print("hits", held.hits, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
