"""What a benchmark run leaves behind in pytest-benchmark's JSON: rows of the tables and lines of the plots."""

from __future__ import annotations

from typing import Literal

import msgspec

Unit = Literal["seconds", "bytes", "percent", "count", "per_second"]


class Budget(msgspec.Struct, frozen=True):
    """What was promised.

    Args:
        limit: in the unit of the value, or of the ratio.
        of_ratio: true when the ratio is judged, not the value.
        at_least: true when more is better.
        what: how the table of budgets calls it; empty for what has a budget only in the table of its group.
        before: what it was when the budget was set.
        reason: why it is not reached, and what was the nearest; shown only while it is not.
    """

    limit: float
    of_ratio: bool = False
    at_least: bool = False
    what: str = ""
    before: str = ""
    reason: str = ""


class Row(msgspec.Struct, frozen=True):
    """One line of the table.

    Args:
        case: what was measured.
        value: the median, where there was more than one round.
        unit: of *value*.
        ratio: to *against*, of the same run.
        against: what *ratio* compares with.
        budget: what is allowed.
        note: what this one does that the one it is compared with does not.
    """

    case: str
    value: float
    unit: Unit
    ratio: float | None = None
    against: str = ""
    budget: Budget | None = None
    note: str = ""


class Series(msgspec.Struct, frozen=True):
    """One line of a plot: how *y* goes with *x*.

    Args:
        name: how the plot calls it.
        plot: the plot that it belongs to, with others.
        panel: title of the panel in the plot; the unit of *y* goes without saying.
        axis: what *x* counts, in the plural.
        x: shape (n,), positive and increasing.
        y: shape (n,), in *unit*.
        unit: of *y*.
        flat: true where *y* must not grow.
        why: why it grows, where it does and may.
    """

    name: str
    plot: str
    panel: str
    axis: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    unit: Unit
    flat: bool = False
    why: str = ""


class Machine(msgspec.Struct, frozen=True):
    """What decides the numbers, and nothing that names the machine."""

    cpu: str
    cores: int
    usable_cores: int
    memory_bytes: int
    system: str
    python: str
    packages: dict[str, str]
    load_before: float


class Stats(msgspec.Struct, frozen=True):
    """The part of pytest-benchmark's statistics that the table needs."""

    median: float
    rounds: int


class Extra(msgspec.Struct, frozen=True):
    """What a benchmark that is more than one simple timing adds."""

    rows: tuple[Row, ...] = ()
    series: tuple[Series, ...] = ()


class Benchmark(msgspec.Struct, frozen=True):
    """One benchmark; *question* is the first line of its docstring."""

    name: str
    fullname: str
    group: str | None
    question: str
    stats: Stats
    extra_info: Extra


class Results(msgspec.Struct, frozen=True):
    """One run; *skipped* and *failed* say why, by the id of the benchmark; *chosen* is true where only some ran."""

    date: str
    machine_info: Machine
    benchmarks: list[Benchmark]
    skipped: dict[str, str]
    failed: dict[str, str]
    chosen: bool = False


def read_results(data: bytes) -> Results:
    """Return the run that the JSON *data* tells of.

    Raises:
        msgspec.ValidationError: it was not written by ``python -m pytest -c bench/pytest.ini bench``.
    """
    return msgspec.json.decode(data, type=Results)
