"""How the panels are to be shown, and what a panel is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from shm_monitor.snapshot.structs import Snapshot
from shm_monitor.tui.axis import Axis
from shm_monitor.tui.rows import Row

SORTS = ("rss", "cpu", "pid")


class Look(NamedTuple):
    """How to show: the width of a panel in cells, its time axis, and what the person chose.

    Args:
        width: of the panel, in cells.
        axis: of all charts.
        sort: one of ``SORTS``.
        wanted: only workers and limits whose name has it.
    """

    width: int
    axis: Axis
    sort: str = SORTS[0]
    wanted: str = ""


Panel = Callable[[Snapshot, Look], list[Row]]
