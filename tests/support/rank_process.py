"""Ranks of a job that ask at each step, while the level flips, and say what they were told."""

from __future__ import annotations

import multiprocessing
import queue
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import shm_monitor as sm
from shm_monitor.schema import Level

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.queues import Queue

    from shm_monitor.acting.ranks import HostRank
    from tests.support.publishing import Bench

WAIT_SECONDS = 400.0
RANKS = 4
Told = tuple[int, list[int], list[bool], float]


def run(rank: HostRank, number: int, name: str, steps: int, step_seconds: float, every: int, told: Queue[Told]) -> None:
    """Ask *steps* times; put the rank, what was agreed and what this rank saw at each, and the seconds per question."""
    reader = sm.attach(name, timeout=30.0)
    verdict = sm.AgreedVerdict(reader, rank, every=every)
    agreed, seen, asking = [], [], 0.0
    for step in range(steps):
        seen.append(reader.should_prune())
        began = time.perf_counter()
        agreed.append(int(verdict(step)))
        asking += time.perf_counter() - began
        time.sleep(step_seconds * (1 + number % 2))  # ranks are never equally fast
    verdict.close()
    told.put((number, agreed, seen, asking / steps))


def agree(bench: Bench, *, steps: int, step_seconds: float, every: int) -> list[Told]:
    """Run four ranks of their own pace while *bench* flips its level; return what each was told, in their order."""
    context = multiprocessing.get_context("spawn")
    ranks, told = sm.HostRanks(RANKS, context), context.Queue()
    processes = [
        context.Process(target=run, args=(ranks.rank(number), number, bench.name, steps, step_seconds, every, told))
        for number in range(RANKS)
    ]
    for one in processes:
        one.start()
    try:
        return _flip_until_told(bench, told.get, every * step_seconds)
    finally:
        for one in processes:
            one.join(WAIT_SECONDS)
            one.kill()
            one.join()
        told.close()


def _flip_until_told(bench: Bench, get: Callable[..., Told], round_seconds: float) -> list[Told]:
    found: list[Told] = []
    deadline = time.monotonic() + WAIT_SECONDS
    while len(found) < RANKS:
        assert time.monotonic() < deadline
        for level in (Level.PRUNE, Level.OK):
            bench.publish(level)
            try:
                found.append(get(timeout=4 * round_seconds))
            except queue.Empty:
                continue
    return sorted(found)


def crossings(found: list[Told]) -> int:
    """Return how often what was agreed changed from one step to the next."""
    return sum(before != after for before, after in pairwise(found[0][1]))


def splits(found: list[Told]) -> int:
    """Return in how many steps two ranks were told different things."""
    return sum(len(set(step)) > 1 for step in zip(*(one[1] for one in found), strict=True))


def differences(found: list[Told]) -> int:
    """Return in how many steps two ranks saw different flags of their own."""
    return sum(len(set(step)) > 1 for step in zip(*(one[2] for one in found), strict=True))
