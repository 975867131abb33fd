"""Line plots as SVG, for light and dark pages alike.

Written here and not by plotly, whose SVG comes from a Chromium that kaleido starts (6 s a picture, 400 MB to install)
and has the colours of one kind of page. These follow ``prefers-color-scheme``, also inside of an ``<img>``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise

from bench.results import Series
from bench.table import SCALES, amount

PANEL_WIDTH, HEIGHT = 430, 300
LEFT, RIGHT, TOP, BOTTOM = 66, 24, 44, 46  # around the field of a panel
LEGEND_LINE = 18
DECADES = 1.3  # above so many powers of ten the axis is logarithmic
COLOURS = (("#0969da", "#58a6ff"), ("#bc4c00", "#f0883e"), ("#1a7f37", "#3fb950"), ("#8250df", "#bc8cff"))
STYLE = """
svg { color-scheme: light dark; font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
.page { fill: #ffffff; } text { fill: #1f2328; } .faint { fill: #59636e; } .title { font-weight: 600; font-size: 13px; }
.grid { stroke: #d1d9e0; } .axis { stroke: #818b98; } .line { fill: none; stroke-width: 2; }
"""
DARK = ".page { fill: #0d1117; } text { fill: #f0f6fc; } .faint { fill: #9198a1; } .grid { stroke: #2f3742; }"


def picture(panels: Sequence[Sequence[Series]], *, title: str) -> str:
    """Return an SVG with *panels* side by side; those in one panel share axes and title."""
    legend = max(len(panel) for panel in panels) * LEGEND_LINE
    width, height = PANEL_WIDTH * len(panels), HEIGHT + legend + 8
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}{''.join(_colours())}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
    ]
    for place, panel in enumerate(panels):
        lines += [f'<g transform="translate({place * PANEL_WIDTH} 0)">', *_Panel(panel).lines(), "</g>"]
    return "\n".join([*lines, "</svg>", ""])


def _colours() -> Iterator[str]:
    """Yield the rules for stroke and fill of each line, for light pages and for dark ones."""
    for place, (light, _) in enumerate(COLOURS):
        yield f".s{place} {{ stroke: {light}; }} .f{place} {{ fill: {light}; }}\n"
    dark = "".join(f".s{at} {{ stroke: {dark}; }} .f{at} {{ fill: {dark}; }}" for at, (_, dark) in enumerate(COLOURS))
    yield f"@media (prefers-color-scheme: dark) {{ {DARK} {dark} }}\n"


class _Panel:
    """One field with its axes, lines and legend."""

    def __init__(self, series: Sequence[Series]) -> None:
        self._series = series
        values = [y for one in series for y in one.y]
        self._unit, self._most, self._least = series[0].unit, max(values), min(values)
        self._is_log = math.log10(self._most / self._least) > DECADES
        self._y_ticks = (
            _decades(self._least, self._most, self._unit) if self._is_log else _round_steps(self._most, self._unit)
        )
        self._x_first, self._x_last = min(one.x[0] for one in series), max(one.x[-1] for one in series)

    def lines(self) -> Iterator[str]:
        """Yield the elements."""
        yield f'<text class="title" x="{LEFT}" y="22">{escape(self._series[0].panel)}</text>'
        for tick in self._y_ticks:
            at = self._y(tick)
            yield f'<line class="grid" x1="{LEFT}" x2="{PANEL_WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            yield _text(LEFT - 8, at + 4, amount(tick, self._unit) if tick else "0", anchor="end", faint=True)
        yield from self._x_axis()
        for place, one in enumerate(self._series):
            yield from self._line(place, one)
            yield from self._legend(place, one)

    def _x_axis(self) -> Iterator[str]:
        bottom = HEIGHT - BOTTOM
        yield f'<line class="axis" x1="{LEFT}" x2="{PANEL_WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>'
        shown = -math.inf
        for tick in sorted({x for one in self._series for x in one.x}):
            at = self._x(tick)
            yield f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
            if at - shown > 34:
                yield _text(at, bottom + 17, f"{tick:,.0f}", faint=True)
                shown = at
        middle = (LEFT + PANEL_WIDTH - RIGHT) / 2
        yield _text(middle, bottom + 36, self._series[0].axis, faint=True)

    def _line(self, place: int, one: Series) -> Iterator[str]:
        points = [(self._x(x), self._y(y)) for x, y in zip(one.x, one.y, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dash = "" if one.flat else ' stroke-dasharray="6 4"'
        yield f'<polyline class="line s{place}" points="{path}"{dash}/>'
        for (x, y), value in zip(points, one.y, strict=True):
            tip = escape(f"{one.name}: {amount(value, one.unit)}")
            yield f'<g class="f{place}"><title>{tip}</title>{_mark(place, x, y)}</g>'

    def _legend(self, place: int, one: Series) -> Iterator[str]:
        at = HEIGHT + place * LEGEND_LINE + 8
        dash = "" if one.flat else ' stroke-dasharray="6 4"'
        yield f'<polyline class="line s{place}" points="{LEFT - 24},{at} {LEFT + 4},{at}"{dash}/>'
        yield f'<g class="f{place}">{_mark(place, LEFT - 10, at)}</g>'
        yield _text(LEFT + 12, at + 4, one.name.replace("`", ""), anchor="start")

    def _x(self, value: float) -> float:
        """Return the place of *value*; the axis is logarithmic."""
        share = math.log(value / self._x_first) / math.log(self._x_last / self._x_first)
        return LEFT + 10 + share * (PANEL_WIDTH - LEFT - RIGHT - 20)

    def _y(self, value: float) -> float:
        low, high = (self._y_ticks[0], self._y_ticks[-1])
        share = math.log(value / low) / math.log(high / low) if self._is_log else value / high
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _mark(place: int, x: float, y: float) -> str:
    """Return the mark of a point: a shape of its own for each line, for who does not tell the colours apart."""
    if place == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    if place == 1:
        return f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"/>'
    sides = ((0, -5), (5, 4), (-5, 4)) if place == 2 else ((0, -5), (5, 0), (0, 5), (-5, 0))
    return f'<polygon points="{" ".join(f"{x + right:.1f},{y + down:.1f}" for right, down in sides)}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "middle", faint: bool = False) -> str:
    kind = ' class="faint"' if faint else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _decades(least: float, most: float, unit: str) -> list[float]:
    """Return the powers of ten around *least* and *most*; of bytes, those of a MB."""
    one = 2.0**20 if unit == "bytes" else 1.0
    first, last = math.floor(math.log10(least / one)), math.ceil(math.log10(most / one))
    return [one * 10.0**power for power in range(first, max(last, first + 1) + 1)]


def _round_steps(most: float, unit: str) -> list[float]:
    """Return four to six round numbers from 0 to just above *most*, in the unit that *most* is shown in."""
    factor = next((factor for factor, _ in SCALES[unit] if most >= factor), 1.0)
    rough = most / factor / 4
    power = 10.0 ** math.floor(math.log10(rough))
    steps = [power * times for times in (1, 2, 2.5, 5, 10)]
    step = next(above for below, above in pairwise([0.0, *steps]) if below < rough <= above)
    return [step * factor * turn for turn in range(math.ceil(most / factor / step) + 1)]
