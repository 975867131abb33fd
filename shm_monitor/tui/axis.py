"""The time axis: one for all charts of a screen, so that what happened at once stands under each other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from rich.text import Text

from shm_monitor.snapshot.structs import Snapshot
from shm_monitor.tui.marks import GREY

GUTTER_CELLS = 21  # left of each chart: the longest name with the longest amount, "received 1023.9 MB/s"
CELLS_MIN = 8
HELD_INTERVALS = 2  # a reading stands for the cells after it, until the next one is that late
HELD_SECONDS_MIN = 2.0  # the view takes one sample a second, however many there are
SPANS_SECONDS = (30, 60, 120, 300, 600, 1800, 3600)
SPAN_SECONDS = 120

Series = Callable[[Snapshot], float | None]


class Axis:
    """The last *span_seconds* of *past*, in as many cells as a panel of *width* cells has room for.

    Attributes:
        cells: for each cell the samples in it, the newest rightmost; a cell without one has the sample before it.
    """

    def __init__(self, past: Sequence[Snapshot], width: int, span_seconds: float = SPAN_SECONDS) -> None:
        """Sort *past*, oldest first, into cells."""
        self.span_seconds = span_seconds
        self.end = past[-1].sampled_at if past else math.nan
        self.cells: list[list[Snapshot]] = [[] for _ in range(max(width - GUTTER_CELLS - 1, CELLS_MIN))]
        per_second = len(self.cells) / span_seconds
        after = len(self.cells)
        for one in reversed(past):
            at = len(self.cells) - 1 - math.floor((self.end - one.sampled_at) * per_second)
            held = math.ceil(max(HELD_INTERVALS * one.interval_seconds, HELD_SECONDS_MIN) * per_second)
            for cell in range(max(at, 0), min(max(after, at + 1), at + held, len(self.cells))):
                self.cells[cell].append(one)
            after = at
            if at < 0:
                break

    def highest(self, of: Series) -> list[float | None]:
        """Return the highest reading of each cell; None where there is none."""
        return [max((value for one in cell if (value := of(one)) is not None), default=None) for cell in self.cells]

    def line(self, label: str) -> Text:
        """Return what stands below the chart *label*: how long ago, and when the newest sample was taken."""
        middle, left = f"-{_span(self.span_seconds / 2)}", f"-{_span(self.span_seconds)}"
        right = "" if math.isnan(self.end) else time.strftime("%H:%M:%S", time.localtime(self.end))
        count, half = len(self.cells), len(self.cells) // 2
        words = f"{left}{middle:>{half + len(middle) - len(left)}}" if count >= 4 * len(right) else left
        return Text(f"{label:{GUTTER_CELLS}} {words}{right:>{max(count - len(words), 0)}}", style=GREY)


def _span(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:g} min" if seconds < 3600 else f"{seconds / 3600:g} h"
