"""The kernel ``run``: ``shm_monitor.kernels.decide`` over a whole trace, as a replay has it."""

# ruff: noqa: PLR0913, PLR0917  a kernel takes arrays one by one

from __future__ import annotations

import numpy as np

from shm_monitor.kernels.compiled import Kernel, read_only
from shm_monitor.kernels.decide import EPISODES, LIMIT, MEAN, RULES, TRACK, WORDS, Integers, Words, decide
from shm_monitor.kernels.past import Floats

BARS = (*range(LIMIT, MEAN + 1), EPISODES)  # what a replay keeps of a track with each sample
BARS_WIDTH = len(BARS)


def run(
    mono: Words,
    values: Floats,
    start: int,
    stop: int,
    columns: Integers,
    bounds: Floats,
    timing: Floats,
    buckets: Floats,
    recent: Floats,
    state: Floats,
    words: Words,
    verdicts: Words,
    bars: Floats,
) -> None:
    """Take the samples *start* to *stop* - 1 of a trace, whose rows are in order.

    Args:
        mono, values: shapes (n,) and (n, metrics).
        words, verdicts: results for each row, shapes (n, limits) and (n,); of the verdicts bit 0 is read.
        bars: result, shape (n, limits, BARS_WIDTH): limit, target, capacity, seconds to the end, mean and number of
            episodes as they were.
        columns, bounds, timing, buckets, recent, state: as for ``decide``.
    """
    now, wait = np.zeros(state.shape[0], np.uint64), np.empty(1)
    if start > 0:
        now[:] = words[start - 1]
    for row in range(start, stop):
        one = slice(row, row + 1)
        decide(mono[one], values[row], columns, bounds, timing, buckets, recent, state, now, verdicts[one], wait)
        words[row] = now
        for place in range(state.shape[0]):
            for bar in range(BARS_WIDTH - 1):
                bars[row, place, bar] = state[place, LIMIT + bar]
            bars[row, place, BARS_WIDTH - 1] = state[place, EPISODES]


_TRACE = (read_only("uint64", 1), read_only("float64", 2, "C"), "int64", "int64")

RUN = Kernel(run, f"void({', '.join((*_TRACE, *RULES, *TRACK, 'uint64[:, ::1]', WORDS, 'float64[:, :, ::1]'))})")
