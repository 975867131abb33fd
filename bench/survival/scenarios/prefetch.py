"""A training loop whose loader is faster than it is, so that its prefetch queue leaks, in 512 MB."""

from __future__ import annotations

import functools
import queue
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np

import shm_monitor as sm
from bench.survival.scenario import Contender, Run, Scenario
from bench.survival.stage import MIB, module, run

GROUP_MB = 512
RATES_PERCENT = (2, 11, 24, 49)  # of the cgroup, per second, that the loader is ahead of the loop
FIXED_DEPTHS = (1, 4, 16)
FULL_DEPTH = 64
BATCHES, BATCH_MB, STEP_SECONDS = 200, 2, 0.05
LEAK_SECONDS, BASE_MB = 6.0, 60  # the queue has so long until it fills what the loop itself leaves
POLL_SECONDS = 0.005


def train(depth_of: str, percent: float) -> None:
    """Take batches from a queue that a loader fills: without an end, to a fixed depth, or as a governor says."""
    leak = percent / 100 * GROUP_MB
    held = np.ones(int(max(GROUP_MB - BASE_MB - LEAK_SECONDS * leak, 1.0)) * MIB // 8)
    batches: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
    load_seconds = BATCH_MB / (BATCH_MB / STEP_SECONDS + leak)
    began, total = time.monotonic(), 0.0
    threading.Thread(target=_load, args=(batches, depth_of, load_seconds), daemon=True).start()
    for _ in range(BATCHES):
        total += batches.get().sum()
        time.sleep(STEP_SECONDS)
    print(f"{total + held[0]:.0f} {time.monotonic() - began}")


def _load(batches: queue.SimpleQueue[np.ndarray], depth_of: str, load_seconds: float) -> None:
    """Load BATCHES for the loop, and those of the next epoch after them, for as long as the queue takes them."""
    governor = sm.Governor(FULL_DEPTH, reader=sm.attach(watch=["memory"])) if depth_of == "governor" else None
    number, due = 0, time.monotonic()
    while True:
        batches.put(np.full(BATCH_MB * MIB // 8, number % 7.0))
        number += 1
        due += load_seconds  # a loader that had to wait for a CPU makes up for it
        if governor:
            governor.observe(batches.qsize(), batches.qsize() * BATCH_MB * MIB)
        time.sleep(max(due - time.monotonic(), 0.0))
        while depth_of != "plain" and batches.qsize() >= (governor.step() if governor else int(depth_of)):
            time.sleep(POLL_SECONDS)
            due = time.monotonic()


def leaking(depth: str, percent: int) -> Run:
    """Train with a queue of *depth* whose loader is *percent* of the cgroup a second ahead."""
    return run(module(__name__, depth, percent), group_mb=GROUP_MB)


def _contenders() -> Iterator[Contender]:
    for percent in RATES_PERCENT:
        yield Contender(f"plain, {percent} %/s", functools.partial(leaking, "plain", percent), "plain")
        yield Contender(f"governor, {percent} %/s", functools.partial(leaking, "governor", percent), "ours")
    for depth in FIXED_DEPTHS:
        yield Contender(f"{depth} batches", functools.partial(leaking, str(depth), RATES_PERCENT[0]), "fixed")


SCENARIO = Scenario(
    order=2,
    title="A leaking prefetch queue",
    text=f"""
A loop over {BATCHES} batches of {BATCH_MB} MB, one each {1000 * STEP_SECONDS:.0f} ms, whose loader is ahead of it by 2,
11, 24 or 49 % of the {GROUP_MB} MB a second. *plain* is a queue without an end, *governor* lets the loader wait while
as many batches are in the queue as `governor.step()` says; the best fixed depth was found at 2 %/s.""",
    contenders=tuple(_contenders()),
)

if __name__ == "__main__":
    train(sys.argv[1], float(sys.argv[2]))
