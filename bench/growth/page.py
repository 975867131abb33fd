"""docs/growth.md and its plots, from what a benchmark run measured."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from bench.growth.chart import picture
from bench.growth.trend import sentence
from bench.results import Results, Series
from bench.table import amount, machine_lines

ORDER = ("asks", "metrics", "rate", "window", "api")
INTRODUCTION = """# Growth

Written by `make bench` (bench/growth/page.py); do not edit. What must not grow with the number of workers, metrics,
samples a second or samples in a window is drawn as a whole line, what may grow as a dashed one. The sentence below a
plot says whether a line is flat: "flat" is an exponent of at most 0.05 in the power law through its points (12 % for
each ten times as many). CPU is what the kernel counted for a process and not time on the clock, so that many
processes on few cores can be compared. Private memory is what only that process has and the kernel cannot drop."""


class Plot(NamedTuple):
    """One plot: its question, and its lines by panel."""

    name: str
    question: str
    panels: list[list[Series]]


def write(results: Results, folder: Path) -> None:
    """Write the page and the plots of *results* into *folder*."""
    plots = list(plots_of(results))
    for plot in plots:
        target = folder / f"growth-{plot.name}.svg"
        target.write_text(picture(plot.panels, title=plot.question), encoding="utf-8")
    (folder / "growth.md").write_text("\n".join(page_lines(results, plots)), encoding="utf-8")


def plots_of(results: Results) -> Iterator[Plot]:
    """Yield the plots in the order of the page."""
    drawn = [one for one in results.benchmarks if one.extra_info.series]
    for one in sorted(drawn, key=lambda one: ORDER.index(one.extra_info.series[0].plot)):
        series = one.extra_info.series
        panels = [list(members) for _, members in groupby(series, key=lambda line: line.panel)]
        yield Plot(series[0].plot, one.question, panels)


def sentences(results: Results) -> Iterator[str]:
    """Yield what each line of each plot shows."""
    for plot in plots_of(results):
        yield from ("", plot.question, "")
        yield from (f"* {sentence(line)}" for panel in plot.panels for line in panel)


def page_lines(results: Results, plots: list[Plot]) -> Iterator[str]:
    """Yield the lines of the page."""
    yield INTRODUCTION
    yield from machine_lines(results)
    for plot in plots:
        yield from (f"## {plot.question}", "", f"![{plot.question}](growth-{plot.name}.svg)")
        for panel in plot.panels:
            yield from ("", f"{panel[0].panel}:", "")
            yield from (f"* {sentence(line)}" for line in panel)
            yield ""
            yield from _table(panel)
        yield ""


def _table(panel: list[Series]) -> Iterator[str]:
    """Yield the points of *panel*, one row for each line."""
    counts = sorted({x for line in panel for x in line.x})
    yield f"| {panel[0].axis} | {' | '.join(f'{count:,.0f}' for count in counts)} |"
    yield f"|---|{'---:|' * len(counts)}"
    for line in panel:
        values = dict(zip(line.x, line.y, strict=True))
        cells = (amount(values[count], line.unit) if count in values else "" for count in counts)
        yield f"| {line.name} | {' | '.join(cells)} |"
