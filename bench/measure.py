"""How a benchmark measures a call of a few nanoseconds, and how it says what it saw."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import repeat
from types import FunctionType
from typing import Any, NamedTuple

from pytest_benchmark.fixture import BenchmarkFixture

ROUND_SECONDS = 0.002  # long against the clock's 50 ns, short against a change of the CPU's frequency
ROUNDS = 60
_UNROLLED = 10


class Budget(NamedTuple):
    """What an issue allows.

    Args:
        limit: in the unit of the value, or of the ratio.
        issue: the one that says so.
        of_ratio: true when the ratio is judged, not the value.
        at_least: true when more is better.
    """

    limit: float
    issue: int
    of_ratio: bool = False
    at_least: bool = False


class Rows:
    """The rows that one benchmark puts into the published table; kept as ``extra_info`` of its JSON."""

    def __init__(self, extra_info: dict[str, Any]) -> None:
        self._rows: list[dict[str, object]] = extra_info.setdefault("rows", [])

    def add(
        self,
        case: str,
        value: float,
        unit: str,
        *,
        ratio: float | None = None,
        against: str = "",
        budget: Budget | None = None,
    ) -> None:
        """Add one row.

        Args:
            case: what was measured.
            value: the median, where there was more than one round.
            unit: seconds, bytes, percent, count, per_second or ratio.
            ratio: to *against*, of the same run.
            against: what *ratio* compares with.
            budget: what is allowed.
        """
        self._rows.append(
            {
                "case": case,
                "value": value,
                "unit": unit,
                "ratio": ratio,
                "against": against,
                "budget": None if budget is None else budget._asdict(),
            }
        )


class Compared(NamedTuple):
    """Medians over the rounds: seconds per call, of the baseline too, and of the ratio of each pair of rounds."""

    seconds: float
    baseline_seconds: float
    ratio: float


def nothing() -> bool:
    """Return False and do nothing else: what any Python function costs."""
    return False


def compare(
    benchmark: BenchmarkFixture,
    call: Callable[[], object],
    baseline: Callable[[], object] = nothing,
    *,
    before_round: Callable[[], object] = nothing,
) -> Compared:
    """Time *call*, each round right after one of *baseline*, so that a drifting CPU frequency cancels in the ratio.

    Args:
        benchmark: gets the rounds of *call*.
        call: what is measured.
        baseline: what it is compared with.
        before_round: called before each round of *call*, outside the time.
    """
    time_call, time_baseline = timer_of(call), timer_of(baseline)
    counts = _count_for(time_call), _count_for(time_baseline)
    theirs: list[float] = []
    ours: list[float] = []

    def first_the_baseline() -> None:
        theirs.append(time_baseline(counts[1]))
        before_round()

    benchmark.pedantic(lambda: ours.append(time_call(counts[0])), setup=first_the_baseline, rounds=ROUNDS)
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return Compared(statistics.median(ours), statistics.median(theirs), statistics.median(ratios))


def timer_of(call: Callable[[], object]) -> Callable[[int], float]:
    """Return a function of a count that returns the seconds per call of *call*.

    Each has code of its own: CPython specialises a call site for what it calls, as it does in a worker's loop; one
    shared site would make every call slower.
    """
    timed = FunctionType(_timed.__code__.replace(), globals())
    return lambda count: timed(call, count)


def _timed(call: Callable[[], object], count: int) -> float:
    """Return the seconds per call; ten calls per turn make the loop itself a tenth of 8 ns."""
    turns = repeat(None, count // _UNROLLED)
    began = time.perf_counter()
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
    return (time.perf_counter() - began) / count


def _count_for(timed: Callable[[int], float]) -> int:
    """Return how many calls take about :data:`ROUND_SECONDS`; also warms the call site up."""
    seconds = min(timed(_UNROLLED * 3) for _ in range(3))
    return max(int(ROUND_SECONDS / seconds) // _UNROLLED, 1) * _UNROLLED
