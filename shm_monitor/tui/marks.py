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
    cells = [_UNKNOWN if value is None else _STEPS[_step(value, scale)] for value in shown]
    return "".join(cells).rjust(width)


def _step(value: float, scale: float) -> int:
    if scale <= 0 or value <= 0:
        return 0
    return max(min(round(value / scale * 8), 8), 1)  # what is not nothing is seen


def timeline(levels: Sequence[str], width: int) -> Text:
    """Return the newest *width* of *levels* as a strip, one cell each."""
    text = Text(" " * max(width - len(levels), 0))
    for level in levels[-width:]:
        text.append("█" if level in {"prune", "critical"} else "▄" if level == "warn" else "▁", style=_strip(level))
    return text


def _strip(level: str) -> str:
    return {"ok": "green", "warn": "yellow", "prune": "red", "critical": "bold red"}.get(level, GREY)
