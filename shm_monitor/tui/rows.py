"""What panels are made of: bars, charts and tables in aligned columns, and how many lines each chart gets."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from rich.text import Text

from shm_monitor.tui.axis import GUTTER_CELLS, Axis, Series
from shm_monitor.tui.marks import AREA, AREAS, FULL, GREY, UNKNOWN, bar, blocks
from shm_monitor.units import human, printable

BAR_CELLS_MIN = 6
BORDER_LINES = 2
_SIGNS = "▁─▔"  # a line through the lower, the middle and the upper third of a cell


class BarRow(NamedTuple):
    """A bar between its label and amount on the left and *words* on the right; *marks* are shares and signs on it."""

    label: str
    share: float | None
    amount: str
    words: str = ""
    style: str = "cyan"
    marks: Sequence[tuple[float, str]] = ()
    amount_style: str = ""


class Rule(NamedTuple):
    """A line through a chart at *value*, with its name left of it."""

    value: float
    name: str
    style: str


class Chart(NamedTuple):
    """The history of one number.

    Args:
        label: stands left of it, with *amount*, the number now; unless *rules* stand there.
        unit: the end of the name of a metric: how the scale is written.
        top: what its upper edge stands for; where *grows*, it doubles until the highest reading is below it.
        by_level: whether it has the colour of the level of each sample.
        least: how many lines it has at least, and the more *weight*, the more of the lines that are left.
    """

    label: str
    amount: str
    of: Series
    unit: str
    top: float
    grows: bool = False
    rules: Sequence[Rule] = ()
    style: str = AREA
    by_level: bool = False
    least: int = 1
    weight: int = 1


Row = Text | Chart


def gutter(label: str, amount: str = "", style: str = "") -> Text:
    """Return what stands left of a bar or a chart."""
    return Text(f"{label}{amount:>{max(GUTTER_CELLS - len(label), len(amount) + 1)}} ", style=style)


def bars(rows: Sequence[BarRow], width: int) -> list[Text]:
    """Return *rows* as lines of *width* cells; the bars begin where charts do, and end together."""
    left = [gutter(row.label, row.amount, row.amount_style) for row in rows]
    room = width - max(map(len, left)) - max(len(row.words) for row in rows) - 1
    cells = max(room, BAR_CELLS_MIN)
    return [
        label + bar(row.share, cells, style=row.style, marks=row.marks) + Text(f" {row.words}", row.amount_style)
        for label, row in zip(left, rows, strict=True)
    ]


def table(
    rows: Sequence[Sequence[str | Text]], width: int, *, left: Iterable[int] = (0,), wide: int | None = None
) -> list[Text]:
    """Return *rows*, the first of which is the head, in columns: numbers to the right, those in *left* to the left.

    The column *wide*, if any, takes what the others leave of *width*, and is cut there.
    """
    cells = [[Text(one) if isinstance(one, str) else one for one in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if wide is not None:
        widths[wide] += max(width - sum(widths) - len(widths) + 1, 4 - widths[wide])
    for row in cells:
        for at, cell in enumerate(row):
            cell.truncate(widths[at], overflow="ellipsis")
            cell.align("left" if at in left else "right", widths[at])
    lines = [Text(" ").join(row) for row in cells]
    lines[0].stylize(GREY)
    return lines


def wrapped(text: str, width: int, style: str = "", *, indent: str = "", most: int | None = None) -> list[Text]:
    """Return *text* in lines of *width* cells, *most* of them; a number stays beside its unit."""
    glued = re.sub(r"(?<=\d) (?=[A-Za-z%°])", "\u00a0", printable(text))
    lines = textwrap.wrap(
        glued,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        max_lines=most,
        placeholder=" ...",
        break_on_hyphens=False,
    )
    return [Text(line.replace("\u00a0", " "), style=style) for line in lines]


def heights(panels: Mapping[str, Sequence[Row]], room: int) -> dict[str, list[int]]:
    """Return how many lines each chart of each of *panels* has, so that the panels fill *room* lines.

    If they need more, those that come first fill it: none is cut in two, and the others are below.
    """
    charts = {name: [row for row in rows if isinstance(row, Chart)] for name, rows in panels.items()}
    found = {name: [chart.least for chart in charts[name]] for name in panels}
    growing: list[tuple[str, int]] = []
    for name, rows in panels.items():
        lines = BORDER_LINES + len(rows) - len(charts[name]) + sum(found[name])
        if lines > room:
            break
        room -= lines
        growing += [(name, at) for at, chart in enumerate(charts[name]) if chart.weight]
    for _ in range(room if growing else 0):
        name, at = min(growing, key=lambda one: found[one[0]][one[1]] / charts[one[0]][one[1]].weight)
        found[name][at] += 1
    return found


def drawn(rows: Iterable[Row], axis: Axis, lines: Iterable[int], *, grey: bool = False) -> Text:
    """Return *rows* as one text, with charts of as many *lines*; it is cut, not wrapped, where it is too wide."""
    high = iter(lines)
    parts = [[row] if isinstance(row, Text) else _chart(row, axis, next(high)) for row in rows]
    text = Text("\n").join(_inert(line) for part in parts for line in part)
    if grey:
        crossed = [span for span in text.spans if " on " in str(span.style)]  # rules over a full cell
        text = Text.assemble((text.plain, GREY))
        for span in crossed:
            text.stylize("reverse", span.start, span.end)
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _chart(chart: Chart, axis: Axis, height: int) -> Iterable[Text]:
    values = axis.highest(chart.of)
    if chart.grows:
        highest = max((value for value in values if value is not None), default=0.0)
        chart = chart._replace(top=chart.top * 2 ** max(math.ceil(math.log2(max(highest, 1.0) / chart.top)), 0))
    styles = [chart.style] * len(values)
    if chart.by_level:
        levels = [max((one.level for one in cell), key=list(AREAS).index, default="ok") for cell in axis.cells]
        styles = [AREAS.get(level, chart.style) if level != "ok" else chart.style for level in levels]
    labels = _labels(chart, height)
    for row, line in enumerate(blocks(values, height, top=chart.top)):
        crossing = [rule for rule in chart.rules if _row_of(rule.value, chart.top, height) == row]
        yield labels[row] + _crossed(line, styles, crossing, chart.top / height)


def _crossed(line: str, styles: Sequence[str], rules: Sequence[Rule], per_line: float) -> Text:
    """Return *line* with *rules* where it is blank or full; several of them have a cell each in turn."""
    if not rules and UNKNOWN not in line and len(set(styles)) == 1:
        return Text(line, styles[0])
    cells = []
    for at, (sign, style) in enumerate(zip(line, styles, strict=True)):
        if rules and sign in {" ", UNKNOWN, FULL}:
            rule = rules[at % len(rules)]
            third = math.ceil(3 * (rule.value / per_line % 1 or 1.0)) - 1
            cells.append((_SIGNS[third], f"white on {style}" if sign == FULL else rule.style))
        else:
            cells.append((sign, GREY if sign == UNKNOWN else style))
    text = Text()
    for style, group in groupby(cells, key=lambda cell: cell[1]):
        text.append("".join(sign for sign, _ in group), style)
    return text


def _labels(chart: Chart, height: int) -> list[Text]:
    """Return what stands left of each line of *chart*: its rules, else its name and its scale."""
    if not chart.rules:
        found = {0: gutter(chart.label, chart.amount), 1: gutter("", f"0 to {human(chart.unit, chart.top)}", GREY)}
        return [found.get(row, gutter("")) for row in range(height)]
    half = _row_of(chart.top / 2, chart.top, height)
    found = {half: gutter("", human(chart.unit, chart.top / 2), GREY), height - 1: gutter("", "0", GREY)}
    last = -1
    for at, rule in enumerate(chart.rules):
        last = max(min(_row_of(rule.value, chart.top, height), height - len(chart.rules) + at), last + 1)
        found[last] = gutter(rule.name, human(chart.unit, rule.value), rule.style)
    return [found.get(row, gutter("")) for row in range(height)]


def _row_of(value: float, top: float, height: int) -> int:
    """Return the line, counted from above, in which *value* lies."""
    return height - 1 - min(max(math.ceil(value / top * height) - 1, 0), height - 1)


def _inert(line: Text) -> Text:
    """Return *line* with nothing in it that a terminal obeys: names of limits and GPUs come from elsewhere."""
    return line if line.plain.isprintable() else Text(printable(line.plain))
