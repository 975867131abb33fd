"""What a benchmark run leaves behind: the rows of the published table, inside pytest-benchmark's JSON."""

from __future__ import annotations

import msgspec


class Budget(msgspec.Struct, frozen=True):
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


class Row(msgspec.Struct, frozen=True):
    """One line of the table.

    Args:
        case: what was measured.
        value: the median, where there was more than one round.
        unit: seconds, bytes, percent, count or per_second.
        ratio: to *against*, of the same run.
        against: what *ratio* compares with.
        budget: what is allowed.
    """

    case: str
    value: float
    unit: str
    ratio: float | None = None
    against: str = ""
    budget: Budget | None = None


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


class Benchmark(msgspec.Struct, frozen=True):
    """One benchmark; *question* is the first line of its docstring."""

    name: str
    fullname: str
    group: str | None
    question: str
    stats: Stats
    extra_info: Extra


class Results(msgspec.Struct, frozen=True):
    """One whole run; *skipped* and *failed* say why, by the id of the benchmark."""

    date: str
    machine_info: Machine
    benchmarks: list[Benchmark]
    skipped: dict[str, str]
    failed: dict[str, str]


def read_results(data: bytes) -> Results:
    """Return the run that the JSON *data* tells of.

    Raises:
        msgspec.ValidationError: it was not written by ``python -m pytest -c bench/pytest.ini bench``.
    """
    return msgspec.json.decode(data, type=Results)
