"""A numpy loop in micro-batches beside a neighbour that grows, in 512 MB."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterator

import numpy as np

import shm_monitor as sm
from bench.survival.scenario import Contender, Run, Scenario
from bench.survival.stage import MIB, module, run

GROUP_MB = 512
RATES_PERCENT = (2, 11, 24, 49)  # of the cgroup, per second
NEIGHBOUR_MB = 300
GROWTH_SECONDS = 6.0  # what is more than this at the rate is there from the start
ROW_BYTES = MIB // 2
FULL_ROWS = 256
BATCHES = 60
FIXED_ROWS = (8, 16, 32, 48, 64, 96)


def train(rows_of: str) -> None:
    """Train on whole batches in slices: of a fixed number of rows, or as a governor says."""
    micro = sm.MicroBatch(FULL_ROWS, reader=sm.attach(watch=["memory"])) if rows_of == "governor" else None
    total, began = 0, time.monotonic()
    for number in range(BATCHES):
        rows = np.arange(FULL_ROWS) + number
        if micro:
            total += sum(step(part) for (part,), _, _ in micro.split(rows))
        else:
            fixed = int(rows_of)
            total += sum(step(rows[at : at + fixed]) for at in range(0, FULL_ROWS, fixed))
    print(total, time.monotonic() - began, flush=True)


def step(rows: np.ndarray) -> int:
    """Take two arrays of ROW_BYTES per row, as a forward and a backward pass would."""
    forward = np.repeat(rows, ROW_BYTES // 8).reshape(len(rows), -1)
    return int((forward * 3).sum())


def grow(percent: float) -> None:
    """Grow at *percent* of the cgroup per second to NEIGHBOUR_MB, and stay."""
    held: list[np.ndarray] = []
    mb_per_second = percent / 100 * GROUP_MB
    began, first = time.monotonic(), max(NEIGHBOUR_MB - GROWTH_SECONDS * mb_per_second, 0.0)
    while True:
        wanted = min(first + (time.monotonic() - began) * mb_per_second, NEIGHBOUR_MB)
        while len(held) < wanted:
            held.append(np.ones(MIB // 8))
        time.sleep(0.01)


def beside_neighbour(rows: str, percent: int) -> Run:
    """Train in slices of *rows* beside a neighbour that grows by *percent* a second."""
    return run(module(__name__, "train", rows), beside=[module(__name__, "grow", percent)], group_mb=GROUP_MB)


def _contenders() -> Iterator[Contender]:
    for percent in RATES_PERCENT:
        group = f"{percent} %/s"
        run_with = functools.partial(beside_neighbour, percent=percent)
        yield Contender(f"plain, {group}", functools.partial(run_with, str(FULL_ROWS)), "plain", group)
        yield Contender(f"governor, {group}", functools.partial(run_with, "governor"), "ours", group)
        for rows in FIXED_ROWS:
            yield Contender(f"{rows} rows, {group}", functools.partial(run_with, str(rows)), "fixed", group)


SCENARIO = Scenario(
    order=1,
    title="A growing neighbour",
    text=f"""
A numpy loop over {BATCHES} batches of {FULL_ROWS} rows of 1 MB in {GROUP_MB} MB, while a neighbour in the same cgroup
grows at 2, 11, 24 or 49 % of it per second to {NEIGHBOUR_MB} MB, and stays. *plain* takes whole batches,
*governor* is a `MicroBatch`.""",
    contenders=tuple(_contenders()),
)

if __name__ == "__main__":
    train(sys.argv[2]) if sys.argv[1] == "train" else grow(float(sys.argv[2]))
