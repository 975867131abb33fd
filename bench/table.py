"""The lines of the tables that a benchmark run gives: the machine, its budgets, and one table for each question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from bench.results import Benchmark, Budget, Machine, Results, Row

FRONT = ("hot path", "peers")  # groups that stand on the first page, with the budgets
FIRST = (*FRONT, "reader", "light worker", "acting", "sampler", "death", "fleet", "api")  # the others follow by name
SCALES = {
    "seconds": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")),
    "bytes": ((2.0**20, "MB"), (2.0**10, "KB"), (1.0, "bytes")),
    "percent": ((1.0, "%"),),
    "count": ((1.0, ""),),
    "per_second": ((1.0, "/s"),),
}
# Budgets of benchmarks that are one simple timing.
SIMPLE = {
    "bench_decide_a_sample[64 limits]": Budget(20e-6),
    "bench_replay_a_day[1 limit]": Budget(2.0),
    "bench_replay_a_day[9 limits]": Budget(0.5),
    "bench_roll_a_sample[period 60 s]": Budget(2.0, of_ratio=True),
    "bench_one_whole_sample[shm-monitor]": Budget(600e-6),
}
Table = tuple[str, list[tuple[str, Row]]]
"""A group, and its rows with their questions."""


def tables_of(results: Results) -> list[Table]:
    """Return the rows of the run, by group, in the order of the page."""
    ranked = sorted(results.benchmarks, key=_rank)
    groups = groupby(ranked, key=lambda one: one.group or "other")
    return [(group, rows) for group, members in groups if (rows := list(_rows_of(members)))]


def machine_lines(results: Results) -> Iterator[str]:
    """Yield what it was measured on, and when."""
    yield ""
    yield _machine_line(results.machine_info, results.date)
    yield ""


def verdict_line(rows: Iterable[Row]) -> str:
    """Return how many budgets of *rows* held, and which did not."""
    judged = [(row, held) for row in rows if (held := is_held(row)) is not None]
    broken = [row.case for row, held in judged if not held]
    return f"{len(judged) - len(broken)} of {len(judged)} budgets held{': not ' if broken else '.'}" + "; ".join(broken)


def budget_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the table of the budgets that have a name, and why those that are missed are."""
    judged = [(row, row.budget) for row in rows if row.budget is not None and row.budget.what]
    yield "| what | before | budget | now | now / budget |"
    yield "|---|---|---|---|---:|"
    missed: dict[str, str] = {}
    for row, budget in sorted(judged, key=lambda pair: pair[1].what):
        seen = _seen(row, budget)
        now = f"{digits(seen)} x {row.against}" if budget.of_ratio else amount(seen, row.unit)
        share = digits(seen / budget.limit)
        if not is_held(row):
            share = f"**{share}**"
            missed[budget.what] = budget.reason or "no reason is known"
        what = (
            row.case
            if row.case.startswith("`") and row.case.split()[0] in budget.what
            else f"{budget.what}: {row.case}"
        )
        yield f"| {what} | {budget.before} | {_limit_text(budget, row.unit)} | {now} | {share} |"
    if missed:
        yield ""
        yield "Not reached in this run:"
        yield ""
        yield from (f"* {what}: {reason}" for what, reason in missed.items())


def group_lines(table: Table) -> Iterator[str]:
    """Yield the tables of one group: one for each question."""
    group, rows = table
    yield ""
    yield f"### {group[0].upper()}{group[1:]}"
    for question, found in groupby(rows, key=lambda pair: pair[0]):
        members = [row for _, row in found]
        yield ""
        yield f"*{question}*"
        yield ""
        yield "| case | median | ratio | budget | held |"
        yield "|---|---:|---:|---|---|"
        yield from (f"| {' | '.join(_cells(row))} |" for row in members)
        notes = [f"* {row.case}: {row.note}" for row in members if row.note]
        if notes:
            yield from ("", "What it does besides:", "", *notes)


def left_out_lines(results: Results) -> Iterator[str]:
    """Yield what was skipped or failed, and why."""
    for title, reasons in (("Skipped", results.skipped), ("Failed", results.failed)):
        if reasons:
            yield from ("", f"{title}:", "")
            yield from (f"* `{name.rpartition('::')[2]}`: {reason}" for name, reason in reasons.items())


def _rank(one: Benchmark) -> tuple[int, str]:
    group = one.group or "other"
    return (FIRST.index(group) if group in FIRST else len(FIRST), group)


def _machine_line(machine: Machine, date: str) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    usable = f" ({machine.usable_cores} usable)" if machine.usable_cores != machine.cores else ""
    memory = amount(machine.memory_bytes, "bytes")
    return (
        f"{date}; {machine.cpu}, {machine.cores} cores{usable}, {memory}; {machine.system}; {machine.python}; "
        f"{packages}. Load average when it began: {machine.load_before:.1f}."
    )


def _rows_of(members: Iterable[Benchmark]) -> Iterator[tuple[str, Row]]:
    """Yield question and row; one that is a simple timing is compared with the first of its group."""
    first: tuple[str, float] | None = None
    for one in members:
        if one.extra_info.rows or one.extra_info.series:
            yield from ((one.question, row) for row in one.extra_info.rows)
            continue
        case, seconds = one.name.removeprefix("bench_").replace("_", " "), one.stats.median
        first = first or (case, seconds)
        ratio, against = (None, "") if first[0] == case else (seconds / first[1], first[0])
        yield one.question, Row(case, seconds, "seconds", ratio, against, SIMPLE.get(one.name))


def _cells(row: Row) -> tuple[str, ...]:
    held, budget = is_held(row), row.budget
    ratio = "" if row.ratio is None else f"{digits(row.ratio)} x {row.against}"
    limit = "" if budget is None else _limit_text(budget, row.unit)
    return row.case, amount(row.value, row.unit), ratio, limit, "" if held is None else "yes" if held else "**no**"


def is_held(row: Row) -> bool | None:
    """Return whether the budget of *row* held; None where there is none."""
    budget = row.budget
    if budget is None or (budget.of_ratio and row.ratio is None):
        return None
    seen = _seen(row, budget)
    return seen >= budget.limit if budget.at_least else seen <= budget.limit


def _seen(row: Row, budget: Budget) -> float:
    """Return what *budget* judges of *row*."""
    return row.ratio if budget.of_ratio and row.ratio is not None else row.value


def _limit_text(budget: Budget, unit: str) -> str:
    limit = f"{budget.limit:g} x" if budget.of_ratio else amount(budget.limit, unit)
    return f"{'at least' if budget.at_least else 'at most'} {limit}"


def amount(value: float, unit: str) -> str:
    """Return *value* for people, in the largest unit that leaves a digit before the point.

    >>> amount(2.81e-8, "seconds"), amount(3 * 2**20, "bytes")
    ('28.1 ns', '3 MB')
    """
    scales = SCALES[unit]
    factor, symbol = next((scale for scale in scales if abs(value) >= scale[0]), scales[-1] if value else scales[0])
    return f"{digits(value / factor)} {symbol}".strip()


def digits(value: float) -> str:
    """Return *value* with three digits that count, and all of those before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
