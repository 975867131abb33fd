"""Lines that fill their panel: labelled bars whose columns stand under each other, and plots over its whole width."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from rich.text import Text

from shm_monitor.snapshot.structs import Snapshot
from shm_monitor.tui.marks import STYLES, bar, plot, spark
from shm_monitor.units import printable

BAR_CELLS_MIN = 6
HISTORY_STYLE = "cyan"
Series = Callable[[Snapshot], float | None]


class BarRow(NamedTuple):
    """A bar with what it is called before it and what it says behind it; *marks* are shares and signs on it."""

    label: str
    share: float | None
    told: str
    style: str = "cyan"
    marks: Sequence[tuple[float, str]] = ()
    told_style: str = ""


class SparkRow(NamedTuple):
    """A line of blocks with its label and its newest value."""

    label: str
    told: str
    of: Series
    top: float | None = None


def bars(rows: Sequence[BarRow], width: int) -> list[Text]:
    """Return *rows* as lines of *width* cells: labels left, words right, bars over what is between."""
    label, told = _columns(rows)
    cells = max(width - label - told - 2, BAR_CELLS_MIN)
    return [
        Text(f"{row.label:{label}} ")
        + bar(row.share, cells, style=row.style, marks=row.marks)
        + Text(f" {row.told}", style=row.told_style)
        for row in rows
    ]


def sparks(rows: Sequence[SparkRow], past: Sequence[Snapshot], width: int) -> list[Text]:
    """Return *rows* as lines of *width* cells, each with its history in *past*."""
    label, told = _columns(rows)
    cells = max(width - label - told - 2, BAR_CELLS_MIN)
    return [
        Text(f"{row.label:{label}} ")
        + Text(spark([row.of(one) for one in past], cells, top=row.top), style=HISTORY_STYLE)
        + Text(f" {row.told:>{told}}")
        for row in rows
    ]


def history(
    past: Sequence[Snapshot], of: Series, width: int, *, height: int, top: float | None = None, by_level: bool = False
) -> list[Text]:
    """Return what *of* says of *past* as a plot of *height* lines; *by_level*: in the colour of what was decided."""
    newest = past[-2 * width :]
    lines = [Text(line, style=HISTORY_STYLE) for line in plot([of(one) for one in newest], width, height, top=top)]
    for begin, end, level in _stretches([one.level for one in newest], width) if by_level else ():
        for line in lines:
            line.stylize(STYLES[level].split(" on ")[0], begin, end)
    return lines


def _stretches(levels: Sequence[str], width: int) -> Iterable[tuple[int, int, str]]:
    """Yield the cells from where to where, two samples each and the newest rightmost, that were above ok."""
    at = 2 * width - len(levels)
    for level, group in groupby(levels):
        count = len(list(group))
        if level != "ok":
            yield at // 2, (at + count + 1) // 2, level
        at += count


def joined(lines: Iterable[Text]) -> Text:
    """Return *lines* as one text that is cut, not wrapped, where it is wider than its panel."""
    text = Text("\n").join(map(_inert, lines))
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _columns(rows: Sequence[BarRow] | Sequence[SparkRow]) -> tuple[int, int]:
    return max(len(row.label) for row in rows), max(len(row.told) for row in rows)


def _inert(line: Text) -> Text:
    """Return *line* with nothing in it that a terminal obeys: names of limits and GPUs come from elsewhere."""
    return line if line.plain.isprintable() else Text(printable(line.plain))
