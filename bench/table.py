"""Turn the JSON of a benchmark run into the table in bench/README.md.

Usage: python -m bench.table RESULTS.json README.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from bench.results import Benchmark, Budget, Machine, Results, Row, read_results

BEGIN, END = "<!-- table: written by bench/table.py -->\n", "<!-- end of table -->\n"
FIRST = (
    "hot path",
    "reader",
    "light worker",
    "acting",
    "sampler",
    "death",
    "fleet",
    "api",
)  # groups; the others follow by name
SCALES = {
    "seconds": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")),
    "bytes": ((2.0**20, "MB"), (2.0**10, "KB"), (1.0, "bytes")),
    "percent": ((1.0, "%"),),
    "count": ((1.0, ""),),
    "per_second": ((1.0, "/s"),),
}
# Budgets of benchmarks that are one simple timing.
BUDGETS = {
    "bench_decide_a_sample[64 limits]": Budget(20e-6, 5),
    "bench_replay_a_day[1 limit]": Budget(2.0, 5),
    "bench_replay_a_day[9 limits]": Budget(0.5, 11),
    "bench_roll_a_sample[period 60 s]": Budget(2.0, 2, of_ratio=True),
    "bench_one_whole_sample[shm-monitor]": Budget(600e-6, 4),
}


def main(arguments: list[str]) -> int:
    """Write the table of the run *arguments[0]* into the file *arguments[1]*; return the exit status."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    source, target = map(Path, arguments)
    before, _, rest = target.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    table = "\n".join(lines_of(read_results(source.read_bytes())))
    target.write_text(f"{before}{BEGIN}{table}\n{END}{after}", encoding="utf-8")
    print(f"{target}: {table.splitlines()[3]}", file=sys.stderr)  # which budgets held
    return 0


def lines_of(results: Results) -> Iterator[str]:
    """Yield the lines of the whole table, with what it was measured on."""
    yield ""
    yield from _machine_lines(results.machine_info, results.date)
    ranked = sorted(results.benchmarks, key=_rank)
    groups = [(group, list(members)) for group, members in groupby(ranked, key=lambda one: one.group or "other")]
    tables = [(group, list(_rows_of(members))) for group, members in groups]
    yield from _verdict_lines([row for _, rows in tables for _, row in rows])
    for group, rows in tables:
        yield from _group_lines(group, rows)
    for title, reasons in (("Skipped", results.skipped), ("Failed", results.failed)):
        if reasons:
            yield ""
            yield f"{title}:"
            yield ""
            yield from (f"* `{name.rpartition('::')[2]}`: {reason}" for name, reason in reasons.items())
    yield ""


def _rank(one: Benchmark) -> tuple[int, str]:
    group = one.group or "other"
    return (FIRST.index(group) if group in FIRST else len(FIRST), group)


def _machine_lines(machine: Machine, date: str) -> Iterator[str]:
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    cores = f"{machine.cores} cores" + (
        f" ({machine.usable_cores} usable)" if machine.usable_cores != machine.cores else ""
    )
    yield (
        f"{date}; {machine.cpu}, {cores}, {amount(machine.memory_bytes, 'bytes')}; {machine.system}; {machine.python}; "
        f"{packages}. Load average when it began: {machine.load_before:.1f}."
    )
    yield ""


def _verdict_lines(rows: list[Row]) -> Iterator[str]:
    judged = [(row, held) for row in rows if (held := is_held(row)) is not None]
    broken = [row.case for row, held in judged if not held]
    yield f"{len(judged) - len(broken)} of {len(judged)} budgets held{': not ' if broken else '.'}" + "; ".join(broken)


def _rows_of(members: Iterable[Benchmark]) -> Iterator[tuple[str, Row]]:
    """Yield question and row; one that is a simple timing is compared with the first of its group."""
    first: tuple[str, float] | None = None
    for one in members:
        if one.extra_info.rows:
            yield from ((one.question, row) for row in one.extra_info.rows)
            continue
        case, seconds = one.name.removeprefix("bench_").replace("_", " "), one.stats.median
        first = first or (case, seconds)
        ratio, against = (None, "") if first[0] == case else (seconds / first[1], first[0])
        yield one.question, Row(case, seconds, "seconds", ratio, against, BUDGETS.get(one.name))


def _group_lines(group: str, rows: list[tuple[str, Row]]) -> Iterator[str]:
    yield ""
    yield f"### {group[0].upper()}{group[1:]}"
    for question, members in groupby(rows, key=lambda pair: pair[0]):
        yield ""
        yield f"*{question}*"
        yield ""
        yield "| case | median | ratio | budget | held |"
        yield "|---|---:|---:|---|---|"
        for _, row in members:
            held = is_held(row)
            cells = (
                row.case,
                amount(row.value, row.unit),
                _ratio_text(row),
                _budget_text(row),
                "" if held is None else "yes" if held else "**no**",
            )
            yield f"| {' | '.join(cells)} |"


def is_held(row: Row) -> bool | None:
    """Return whether the budget of *row* held; None where there is none."""
    budget = row.budget
    seen = None if budget is None else row.ratio if budget.of_ratio else row.value
    if budget is None or seen is None:
        return None
    return seen >= budget.limit if budget.at_least else seen <= budget.limit


def _ratio_text(row: Row) -> str:
    return "" if row.ratio is None else f"{_digits(row.ratio)} x {row.against}"


def _budget_text(row: Row) -> str:
    budget = row.budget
    if budget is None:
        return ""
    limit = f"{budget.limit:g} x" if budget.of_ratio else amount(budget.limit, row.unit)
    return f"{'at least' if budget.at_least else 'at most'} {limit} (issue {budget.issue})"


def amount(value: float, unit: str) -> str:
    """Return *value* for people, in the largest unit that leaves a digit before the point.

    >>> amount(2.81e-8, "seconds"), amount(3 * 2**20, "bytes")
    ('28.1 ns', '3 MB')
    """
    scales = SCALES[unit]
    factor, symbol = next((scale for scale in scales if abs(value) >= scale[0]), scales[-1] if value else scales[0])
    return f"{_digits(value / factor)} {symbol}".strip()


def _digits(value: float) -> str:
    """Return *value* with three digits that count, and all of those before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
