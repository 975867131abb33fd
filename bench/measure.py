"""How a benchmark measures a call of a few nanoseconds, and how it says what it saw."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import repeat
from types import FunctionType
from typing import Any, NamedTuple

import msgspec
from pytest_benchmark.fixture import BenchmarkFixture

from bench.results import Row, Series

ROUND_SECONDS = 0.002  # long against the clock's 50 ns, short against a change of the CPU's frequency
ROUNDS = 100
_UNROLLED = 10


class Rows:
    """Where one benchmark puts its rows of the published tables and its lines: the ``extra_info`` of its JSON."""

    def __init__(self, extra_info: dict[str, Any]) -> None:
        self._rows: list[object] = extra_info.setdefault("rows", [])
        self._series: list[object] = extra_info.setdefault("series", [])

    def add(self, row: Row) -> None:
        """Add *row* below those that are there."""
        self._rows.append(msgspec.to_builtins(row))

    def draw(self, series: Series) -> None:
        """Add *series* to its plot; those of one panel follow each other."""
        self._series.append(msgspec.to_builtins(series))


class Compared(NamedTuple):
    """Medians over the rounds: seconds per call, of the baseline too, and of the ratio of each pair of rounds."""

    seconds: float
    baseline_seconds: float
    ratio: float


def nothing() -> bool:
    """Return False and do nothing else: what any Python function costs."""
    return False


def run(
    benchmark: BenchmarkFixture,
    call: Callable[[], object],
    *,
    rounds: int = 1,
    before_round: Callable[[], object] | None = None,
) -> None:
    """Have *benchmark* time *call*, *rounds* times, and *before_round* outside the time before each."""
    try:
        benchmark.pedantic(call, setup=before_round, rounds=rounds)  # type: ignore[no-untyped-call]
    except BaseException:  # a time-out or a skip is no Exception, and half a benchmark would break the whole JSON
        benchmark.has_error = True
        raise


def compare(
    benchmark: BenchmarkFixture,
    call: Callable[[], object],
    baseline: Callable[[], object] = nothing,
    *,
    waits: bool = False,
) -> Compared:
    """Time *call*, each round right after one of *baseline*, so that a drifting CPU frequency cancels in the ratio.

    By the CPU that this thread uses, which is the time on the clock where nobody else wants the core; by the clock
    where *call* waits for another process.
    """
    clock = time.perf_counter if waits else time.thread_time
    time_call, time_baseline = timer_of(call, clock), timer_of(baseline, clock)
    count, baseline_count = count_for(time_call), count_for(time_baseline)
    ours: list[float] = []
    theirs: list[float] = []
    run(
        benchmark,
        lambda: ours.append(time_call(count)),
        rounds=ROUNDS,
        before_round=lambda: theirs.append(time_baseline(baseline_count)),
    )
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return Compared(statistics.median(ours), statistics.median(theirs), statistics.median(ratios))


def timer_of(call: Callable[[], object], clock: Callable[[], float]) -> Callable[[int], float]:
    """Return a function of a count that returns the seconds per call of *call*, by *clock*.

    Each has code of its own: CPython specialises a call site for what it calls, as it does in a worker's loop; one
    shared site would make every call slower.
    """
    timed = FunctionType(_timed.__code__.replace(), globals())
    return lambda count: timed(call, count, clock)


def _timed(call: Callable[[], object], count: int, clock: Callable[[], float]) -> float:
    """Return the seconds per call; with ten calls per turn, the loop itself adds less than 1 ns."""
    turns = repeat(None, count // _UNROLLED)
    began = clock()
    for _ in turns:
        call()
        call()
        call()
        call()
        call()
        call()
        call()
        call()
        call()
        call()
    return (clock() - began) / count


def count_for(timed: Callable[[int], float]) -> int:
    """Return how many calls take about ``ROUND_SECONDS``; also warms the call site up."""
    seconds = min(timed(_UNROLLED * 3) for _ in range(3))
    return max(int(ROUND_SECONDS / seconds) // _UNROLLED, 1) * _UNROLLED
