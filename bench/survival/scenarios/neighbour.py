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
LONGEST_TURN_SECONDS = 0.1  # one that had to wait for a CPU does not catch up in a leap
FEATURES = MIB // 16  # a row of floats is half a MB
OUTPUTS = 32
FULL_ROWS = 256
BATCHES = 48
LOAD_SECONDS = 0.3  # no batch is there sooner, so that the loop outlasts the growth on any machine
FIXED_ROWS = (16, 32, 48, 64, 96)


class Model:
    """One layer, trained with whole numbers only, so that the result does not depend on the order of the sums."""

    def __init__(self) -> None:
        self.weights = np.add.outer(np.arange(FEATURES), np.arange(OUTPUTS)) % 7 - 3.0
        self.gradient = np.zeros_like(self.weights)
        self._pattern = np.arange(FEATURES) % 5.0

    def step(self, rows: np.ndarray) -> None:
        """Go forward and backward over the batch *rows*: each takes 1 MB."""
        inputs = np.multiply.outer(rows % 7.0, self._pattern)
        hidden = np.maximum(inputs, 2.0)
        self.gradient += hidden.T @ (hidden @ self.weights % 11)


def train(rows_of: str) -> None:
    """Train on whole batches in slices: of a fixed number of rows, or as a governor says."""
    micro = sm.MicroBatch(FULL_ROWS, reader=sm.attach(watch=["memory"])) if rows_of == "governor" else None
    model, slices = Model(), 0
    began, used = time.monotonic(), time.process_time()
    for number in range(BATCHES):
        time.sleep(max(began + number * LOAD_SECONDS - time.monotonic(), 0.0))
        rows = np.arange(FULL_ROWS) + number
        for part in _slices(rows, micro, rows_of):
            model.step(part)
            slices += 1
    seconds, cpu_seconds = time.monotonic() - began, time.process_time() - used
    print(f"{model.gradient.sum():.0f} {seconds} cpu_seconds={cpu_seconds} rows={BATCHES * FULL_ROWS / slices}")


def _slices(rows: np.ndarray, micro: sm.MicroBatch | None, rows_of: str) -> Iterator[np.ndarray]:
    if micro:
        return (part for (part,), _, _ in micro.split(rows))
    return (rows[at : at + int(rows_of)] for at in range(0, len(rows), int(rows_of)))


def grow(percent: float) -> None:
    """Grow at *percent* of the cgroup per second to NEIGHBOUR_MB, and stay."""
    held: list[np.ndarray] = []
    mb_per_second = percent / 100 * GROUP_MB
    wanted, before = max(NEIGHBOUR_MB - GROWTH_SECONDS * mb_per_second, 0.0), time.monotonic()
    while True:
        while len(held) < wanted:
            held.append(np.ones(MIB // 8))
        time.sleep(0.01)
        now = time.monotonic()
        wanted = min(wanted + min(now - before, LONGEST_TURN_SECONDS) * mb_per_second, NEIGHBOUR_MB)
        before = now


def beside_neighbour(rows: str, percent: int) -> Run:
    """Train in slices of *rows* beside a neighbour that grows by *percent* a second."""
    return run(
        module(__name__, "train", rows),
        beside=[module(__name__, "grow", percent)],
        group_mb=GROUP_MB,
        environment={"MALLOC_MMAP_THRESHOLD_": "131072"},  # else malloc keeps more pages for who was once larger
    )


def _contenders() -> Iterator[Contender]:
    for percent in RATES_PERCENT:
        run_with = functools.partial(beside_neighbour, percent=percent)
        yield Contender(f"plain, {percent} %/s", functools.partial(run_with, str(FULL_ROWS)), "plain")
        yield Contender(f"governor, {percent} %/s", functools.partial(run_with, "governor"), "ours")
    for rows in FIXED_ROWS:  # all rates end at the same size, so that one search does
        yield Contender(f"{rows} rows", functools.partial(beside_neighbour, str(rows), RATES_PERCENT[-1]), "fixed")


SCENARIO = Scenario(
    order=1,
    title="A growing neighbour",
    text=f"""
A layer trained with numpy on {BATCHES} batches of {FULL_ROWS} rows of 1 MB in {GROUP_MB} MB, while a neighbour in the
same cgroup grows at 2, 11, 24 or 49 % of it per second to {NEIGHBOUR_MB} MB, and stays. *plain* takes whole batches,
*governor* is a `MicroBatch`. A batch is there each {LOAD_SECONDS} s, so *work* is by the CPU seconds of the loop.""",
    contenders=tuple(_contenders()),
    cost="cpu_seconds",
)

if __name__ == "__main__":
    train(sys.argv[2]) if sys.argv[1] == "train" else grow(float(sys.argv[2]))
