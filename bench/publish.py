"""Publish a benchmark run: bench/README.md, bench/tables.md, docs/growth.md and its plots.

Usage: python -m bench.publish RESULTS.json

A run of some of the benchmarks (``make bench ARGS="-m budget"``) is printed and changes no file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.growth import page
from bench.results import Results, read_results
from bench.table import (
    FRONT,
    Table,
    budget_lines,
    group_lines,
    left_out_lines,
    machine_lines,
    tables_of,
    verdict_line,
)

BEGIN, END = "<!-- begin: written by bench/publish.py -->\n", "<!-- end -->\n"
ROOT = Path(__file__).parents[1]


def main(arguments: list[str]) -> int:
    """Publish the run *arguments[0]*; return the exit status."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    results = read_results(Path(arguments[0]).read_bytes())
    tables = tables_of(results)
    if results.chosen:
        print("\n".join([*first_page(results, tables), *all_tables(results, tables), *page.sentences(results)]))
        return 0
    replace(ROOT / "bench" / "README.md", first_page(results, tables))
    replace(ROOT / "bench" / "tables.md", all_tables(results, tables))
    page.write(results, ROOT / "docs")
    print(verdict_line(row for _, rows in tables for _, row in rows), file=sys.stderr)
    return 0


def first_page(results: Results, tables: list[Table]) -> Iterator[str]:
    """Yield the lines of the page that says what was promised and how others compare."""
    yield from machine_lines(results)
    yield from budget_lines(row for _, rows in tables for _, row in rows)
    for table in tables:
        if table[0] in FRONT:
            yield from group_lines(table)
    yield from left_out_lines(results)
    yield ""


def all_tables(results: Results, tables: list[Table]) -> Iterator[str]:
    """Yield the lines of the page with everything else."""
    yield from machine_lines(results)
    yield verdict_line(row for _, rows in tables for _, row in rows)
    for table in tables:
        if table[0] not in FRONT:
            yield from group_lines(table)
    yield ""


def replace(target: Path, lines: Iterable[str]) -> None:
    """Put *lines* between the marks in the file *target*."""
    before, _, rest = target.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    body = "\n".join(lines)
    target.write_text(f"{before}{BEGIN}{body}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
