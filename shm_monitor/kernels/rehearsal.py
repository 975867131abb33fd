"""Small made-up runs of each kernel, so that one way to run it can be held against another before it is trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shm_monitor.kernels import decide, past, roll

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Run = Callable[..., Any]

_SAMPLES = 300
_LIMITS, _METRICS, _SLOTS = 3, 8, 16
_PERIOD_NS = 5 * 10**9


def outcome_of_decide(run: Run) -> bytes:
    """Return every byte that *run* leaves behind of a walk of three limits, one of them a rate, with holes."""
    columns = np.full((_LIMITS, decide.COLUMNS_WIDTH), -1, np.int64)
    columns[:, decide.VALUE] = range(_LIMITS)
    columns[:2, decide.ROOM] = range(_LIMITS, _LIMITS + 2)
    columns[0, [decide.RECLAIMS, decide.OOMS, decide.STALL]] = range(_LIMITS + 2, _METRICS)
    columns[:, decide.URGENT] = [1, 1, 0]
    bounds = np.full((_LIMITS, decide.BOUNDS_WIDTH), np.nan)
    bounds[:, decide.CEILING], bounds[:, decide.TARGET_SHARE], bounds[:, decide.DEPTH] = 90.0, 0.9, range(_LIMITS)
    timing = np.array([_PERIOD_NS * 1e-9, 10.0])
    buckets = np.zeros((_LIMITS, past.BUCKETS, past.BUCKET_WIDTH))
    buckets[:, :, past.ID] = -np.inf
    recent = np.full((_LIMITS, past.RECENT_WIDTH), np.nan)
    recent[:, [past.KNOWN_COUNT, past.RATE]] = 0.0
    track = np.full((_LIMITS, decide.TRACK_WIDTH), np.nan)
    track[:, [decide.LEVEL, decide.REASONS, decide.EPISODES]] = 0.0
    track[:, decide.EACH + decide.SET_COUNT :: decide.EACH_WIDTH] = 0.0
    words, wait = np.zeros(_LIMITS, np.uint64), np.zeros(1)
    mono, verdict, told = np.zeros(1, np.uint64), np.zeros(1, np.uint64), list[int]()
    for number, row in enumerate(_readings()):
        mono[0], verdict[0] = (number + 1) * 700_000_000, number % 5 == 0
        told.append(run(mono, row, columns, bounds, timing, buckets, recent, track, words, verdict, wait))
    left = (buckets, recent, track, words, wait, verdict, np.array(told))
    return b"".join(each.tobytes() for each in left)


def outcome_of_roll(run: Run) -> bytes:
    """Return every byte that *run* leaves behind of a ring that it goes around many times."""
    mono, verdict = np.zeros(_SLOTS, np.uint64), np.zeros(_SLOTS, np.uint64)
    values, stack = np.zeros((_SLOTS, _METRICS)), np.zeros((_SLOTS + 2, _METRICS, roll.AGGREGATE_WIDTH))
    stack[-1, :, roll.MAXIMUM] = -np.inf
    cursor, urgent = np.full(roll.CURSOR_WIDTH, -1), np.arange(_METRICS) % 2
    numbers: list[NDArray[np.uint64]] = [np.zeros(1, np.uint64) for _ in range(3)]
    results = [np.zeros(_METRICS) for _ in range(3)]
    left = []
    for number, row in enumerate(_readings(), start=1):
        numbers[0][0], numbers[1][0], numbers[2][0] = number, number * 700_000_000, number % 5 == 0
        run(mono, verdict, values, *numbers, row, *results, cursor, stack, urgent, _PERIOD_NS)
        place = number % _SLOTS
        mono[place], verdict[place], values[place] = numbers[1][0], numbers[2][0], row
        left += [each.tobytes() for each in results]
    return b"".join([*left, cursor.tobytes(), stack.tobytes()])


def _readings() -> NDArray[np.float64]:
    """Return made-up readings, shape (samples, metrics): the same each time, some of them unknown."""
    random = np.random.RandomState(7)
    readings = np.abs(50.0 + random.standard_normal((_SAMPLES, _METRICS)).cumsum(axis=0) * 3.0)
    readings[:, _LIMITS : _LIMITS + 2] = 100.0
    readings[random.random_sample(readings.shape) < 0.02] = np.nan
    return readings


OUTCOMES: dict[str, Callable[[Run], bytes]] = {"decide": outcome_of_decide, "roll": outcome_of_roll}
