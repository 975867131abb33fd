"""What a scenario is, and what is stored of it."""

from __future__ import annotations

import importlib
import pkgutil
import statistics
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import msgspec

Ended = Literal["finished", "killed", "broken", "late", "failed"]
Kind = Literal["plain", "ours", "fixed", "other"]

SEARCH_RUNS = 5  # of each fixed size, and all runs of the best; one that was killed once is not run again


class Run(msgspec.Struct, frozen=True):
    """How one job ended.

    Args:
        ended: ``killed`` by the kernel for memory, ``broken`` where a pool lost a process, ``late`` after the longest
            wait, ``failed`` in any other way.
        result: what the job said of its result; compared between runs.
        seconds: that its work took, as it says itself; 0 where it did not finish.
        trace: (seconds, MB in use of the cgroup) while it ran.
        numbers: what else is to be kept.
    """

    ended: Ended
    result: str = ""
    seconds: float = 0.0
    trace: list[tuple[float, float]] = []
    numbers: dict[str, float] = {}


class Contender(NamedTuple):
    """One line of the table: a way to do the work, run again and again.

    Args:
        label: of the line.
        run: does the work once.
        kind: ``plain`` does not ask, ``ours`` acts by shm-monitor, ``fixed`` is one try of the search for the best
            fixed size, ``other`` is what somebody else offers.
        group: lines of one group do the same work: the best fixed size of the group is the measure for all of them.
        runs: at most so many; None for as many as are asked for.
    """

    label: str
    run: Callable[[], Run]
    kind: Kind
    group: str = ""
    runs: int | None = None


class Scenario(NamedTuple):
    """One section of the page; each file of ``scenarios/`` has one under the name SCENARIO.

    Args:
        order: of the sections on the page.
        title: of the section.
        text: what is done, in words.
        contenders: in the order of the table.
        cost: which of the numbers of a run says what the work took, where it is not its ``seconds``.
        lines: the lines of the section below *text*, where they are not those of ``bench.survival.page``.
    """

    order: float
    title: str
    text: str
    contenders: tuple[Contender, ...]
    cost: str = ""
    lines: Callable[[Stored], list[str]] | None = None


class Measured(msgspec.Struct):
    """The runs of one contender."""

    label: str
    kind: Kind
    group: str = ""
    runs: list[Run] = []

    @property
    def finished(self) -> list[Run]:
        """Return the runs that came to the end."""
        return [run for run in self.runs if run.ended == "finished"]

    def median(self, number: str = "") -> float:
        """Return the median of *number*, or of the seconds, of the runs that came to the end; NaN where none did."""
        seen = [run.numbers.get(number, run.seconds) for run in self.finished]
        return statistics.median(seen) if seen else float("nan")


class Stored(msgspec.Struct):
    """What ``results/SCENARIO.json`` holds.

    Args:
        machine: the date and the machine, in words.
        measured: one per contender.
    """

    machine: str
    measured: list[Measured] = []

    def of(self, contender: Contender) -> Measured:
        """Return what is measured of *contender*; a new, empty entry where nothing is."""
        for one in self.measured:
            if one.label == contender.label:
                return one
        self.measured.append(Measured(contender.label, contender.kind, contender.group))
        return self.measured[-1]

    def best(self, group: str, cost: str = "") -> Measured | None:
        """Return the fixed size of *group* that always finished, at the least *cost*; None where there is none."""
        fixed = [one for one in self.measured if (one.kind, one.group) == ("fixed", group)]
        whole = [one for one in fixed if one.runs and len(one.finished) == len(one.runs)]
        return min(whole, key=lambda one: one.median(cost), default=None)


class _Module(Protocol):
    SCENARIO: Scenario


def scenarios() -> dict[str, Scenario]:
    """Return every scenario by the name of its file, in the order of the page."""
    from bench.survival import scenarios as package

    names = [one.name for one in pkgutil.iter_modules(package.__path__)]
    found = {name: _scenario(f"{package.__name__}.{name}") for name in names}
    return dict(sorted(found.items(), key=lambda pair: pair[1].order))


def _scenario(module: str) -> Scenario:
    loaded: _Module = importlib.import_module(module)
    return loaded.SCENARIO
