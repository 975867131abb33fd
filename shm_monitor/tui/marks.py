"""Bars and lines made of characters: pure functions from numbers to rich text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

STYLES = {"ok": "green", "warn": "yellow", "prune": "bold red", "critical": "bold white on red"}
INJECTED_STYLE = "bold magenta"
GREY = "bright_black"
_STEPS = " ▁▂▃▄▅▆▇█"
_UNKNOWN = "·"


def bar(share: float | None, width: int, *, style: str = "green", marks: Sequence[tuple[float, str]] = ()) -> Text:
    """Return *share* (0 to 1; None: unknown) as a bar of *width* cells, with *marks* (share, character) on it."""
    if share is None:
        return Text(_UNKNOWN * width, style=GREY)
    full = round(min(max(share, 0.0), 1.0) * width)
    text = Text("━" * full, style=style)
    text.append("─" * (width - full), style=GREY)
    for place, sign in marks:
        at = min(max(int(place * width), 0), width - 1)
        text = Text.assemble(text[:at], (sign, "bold"), text[at + 1 :])
    return text


def spark(values: Sequence[float | None], width: int, *, top: float | None = None) -> str:
    """Return the newest *width* of *values* as one line of blocks, scaled to *top*, else to the highest of them.

    An unknown value is a dot; a line of zeros is blank.
    """
    shown = list(values[-width:])
    known = [value for value in shown if value is not None]
    scale = max(known, default=0.0) if top is None else top
    cells = [_UNKNOWN if value is None else _STEPS[_dots(value, scale, 8)] for value in shown]
    return "".join(cells).rjust(width)


def plot(values: Sequence[float | None], width: int, height: int, *, top: float | None = None) -> list[str]:
    """Return the newest ``2 * width`` of *values* as *height* lines of braille, the newest rightmost.

    *top* is what the highest dot stands for, else the highest value. What is unknown is left out.
    """
    shown: list[float | None] = [None] * (2 * width - len(values))
    shown += values[-2 * width :]
    scale = max((value for value in shown if value is not None), default=0.0) if top is None else top
    dots = [0 if value is None else _dots(value, scale, 4 * height) for value in shown]
    return [
        "".join(_cell(dots[at], dots[at + 1], 4 * (height - 1 - line)) for at in range(0, 2 * width, 2))
        for line in range(height)
    ]


def _dots(value: float, scale: float, count: int) -> int:
    if scale <= 0 or value <= 0:
        return 0
    return max(min(round(value / scale * count), count), 1)  # what is not nothing is seen


def _cell(left: int, right: int, below: int) -> str:
    """Return the braille sign of two columns of dots, of which *below* belong to the lines under it."""
    return chr(0x2800 | _LEFT[min(max(left - below, 0), 4)] | _RIGHT[min(max(right - below, 0), 4)])


_LEFT = (0, 0x40, 0x44, 0x46, 0x47)  # dots 7, 3, 2, 1 of a braille cell, from below
_RIGHT = (0, 0x80, 0xA0, 0xB0, 0xB8)  # dots 8, 6, 5, 4


def timeline(levels: Sequence[str], width: int) -> Text:
    """Return the newest *width* of *levels* as a strip, one cell each."""
    text = Text(" " * max(width - len(levels), 0))
    for level in levels[-width:]:
        text.append("█" if level in {"prune", "critical"} else "▄" if level == "warn" else "▁", style=_strip(level))
    return text


def _strip(level: str) -> str:
    return {"ok": "green", "warn": "yellow", "prune": "red", "critical": "bold red"}.get(level, GREY)
