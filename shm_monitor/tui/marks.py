"""Bars and blocks made of characters: pure functions from numbers to text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

COLOURS = {"ok": "green", "warn": "yellow", "prune": "red", "critical": "red"}
AREA = "steel_blue"  # charts are large: calmer colours than words and bars
AREAS = {"ok": "dark_sea_green4", "warn": "dark_goldenrod", "prune": "indian_red", "critical": "red3"}
STYLES = {"ok": "green", "warn": "yellow", "prune": "bold red", "critical": "bold white on red"}
INJECTED_STYLE = "bold magenta"
GREY = "grey50"
UNKNOWN = "·"
FULL = "█"
_EIGHTHS = f" ▁▂▃▄▅▆▇{FULL}"


def bar(share: float | None, width: int, *, style: str = "green", marks: Sequence[tuple[float, str]] = ()) -> Text:
    """Return *share* (0 to 1; None: unknown) as a bar of *width* cells, with *marks* (share, character) on it."""
    if share is None:
        return Text(UNKNOWN * width, style=GREY)
    full = round(min(max(share, 0.0), 1.0) * width)
    text = Text("━" * full, style=style)
    text.append("─" * (width - full), style=GREY)
    for place, sign in marks:
        at = min(max(int(place * width), 0), width - 1)
        text = Text.assemble(text[:at], (sign, "bold"), text[at + 1 :])
    return text


def heat(percent: float | None) -> str:
    """Return the colour of a use of *percent*."""
    return "red" if (percent or 0.0) >= 90 else "yellow" if (percent or 0.0) >= 70 else "green"


def blocks(values: Sequence[float | None], height: int, *, top: float) -> list[str]:
    """Return a column of blocks for each of *values* as *height* lines; a full column stands for *top*.

    An unknown value is a dot on the lowest line; zero is blank, and any other value has at least an eighth of a line.
    """
    eighths = [None if value is None else _eighths(value, top, 8 * height) for value in values]
    return ["".join(_cell(one, 8 * below) for one in eighths) for below in range(height - 1, -1, -1)]


def _eighths(value: float, top: float, count: int) -> int:
    if top <= 0 or value <= 0:
        return 0
    return max(min(round(value / top * count), count), 1)


def _cell(eighths: int | None, below: int) -> str:
    """Return the part of a column of *eighths* on the line that has *below* eighths under it."""
    if eighths is None:
        return " " if below else UNKNOWN
    return _EIGHTHS[min(max(eighths - below, 0), 8)]
