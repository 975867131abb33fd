"""Plots as SVG, by hand: no plotting package is needed to read or to write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from bench.survival.scenario import Kind, Measured

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 200, 28, 34
COLOURS: dict[Kind, str] = {"plain": "#c0392b", "ours": "#1f77b4", "fixed": "#7f8c8d", "other": "#8e44ad"}
DASHES = ("", "6 3", "2 3", "8 3 2 3")


def usage_plot(title: str, shown: Sequence[Measured]) -> str:
    """Return a plot of the memory in use over time, the first run of each of *shown*; empty without traces."""
    lines = [(one, one.runs[0].trace) for one in shown if one.runs and one.runs[0].trace and one.kind != "fixed"]
    if not lines:
        return ""
    end = max(trace[-1][0] for _, trace in lines)
    top = max(mb for _, trace in lines for _, mb in trace) * 1.05
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
            "<style>text { font-size: 12px }</style>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            f'<text x="{LEFT}" y="18" font-weight="bold">{escape(title)}</text>',
            *_axes(end, top),
            *(line for place, (one, trace) in enumerate(lines) for line in _line(one, trace, place, end, top)),
            "</svg>",
            "",
        ]
    )


def _x(seconds: float, end: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * seconds / end


def _y(mb: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * mb / top


def _axes(end: float, top: float) -> Iterator[str]:
    """Yield a grid with round numbers."""
    for mb in _ticks(top):
        y = _y(mb, top)
        yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{mb:g} MB</text>'
    for seconds in _ticks(end):
        yield f'<text x="{_x(seconds, end):.1f}" y="{HEIGHT - 14}" text-anchor="middle">{seconds:g} s</text>'


def _ticks(end: float) -> Iterator[float]:
    step = next(step for step in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000) if end / step <= 7)
    yield from (step * number for number in range(int(end / step) + 1))


def _line(one: Measured, trace: list[tuple[float, float]], place: int, end: float, top: float) -> Iterator[str]:
    """Yield a curve with its name beside the plot; a cross where the job was killed."""
    style = f'stroke="{COLOURS[one.kind]}" stroke-dasharray="{DASHES[place % len(DASHES)]}" fill="none"'
    points = " ".join(f"{_x(seconds, end):.1f},{_y(mb, top):.1f}" for seconds, mb in trace)
    yield f'<polyline points="{points}" stroke-width="1.5" {style}/>'
    if one.runs[0].ended != "finished":
        x, y = _x(trace[-1][0], end), _y(trace[-1][1], top)
        yield f'<path d="M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10" stroke="{COLOURS[one.kind]}" stroke-width="2"/>'
    y = TOP + 14 + 18 * place
    yield f'<path d="M{WIDTH - RIGHT + 10} {y - 4}h24" stroke-width="1.5" {style}/>'
    yield f'<text x="{WIDTH - RIGHT + 40}" y="{y}">{escape(one.label)}: {one.runs[0].ended}</text>'
