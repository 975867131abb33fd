"""One frame without a screen: for ``top --once``, pipes and bug reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.panel import Panel

from shm_monitor.snapshot.structs import Snapshot
from shm_monitor.tui.axis import Axis
from shm_monitor.tui.banner import banner
from shm_monitor.tui.look import Look
from shm_monitor.tui.panels import PANELS, sample_of, title_of
from shm_monitor.tui.rows import drawn, heights
from shm_monitor.tui.source import Frame

BORDER_CELLS = 4
REASONS_MAX = 100


def print_frame(frame: Frame, past: Sequence[Snapshot], out: TextIO, *, width: int | None = None) -> None:
    """Print *frame* on *out*: the banner, then each panel; plain where it is no terminal."""
    console = Console(file=out, width=width, highlight=False, soft_wrap=False)
    room = console.width - BORDER_CELLS
    look = Look(room, Axis(past, room))
    for line in banner(frame, console.width, REASONS_MAX):
        console.print(line)
    if frame.snapshot is None:
        return
    rows = {name: panel(sample_of(frame), look) for name, panel in PANELS.items()}
    lines = heights(rows, 0)
    for name, found in rows.items():
        if name == "gpus" and not frame.snapshot.gpus:
            continue
        text = drawn(found, look.axis, lines[name], grey=not frame.live)
        console.print(Panel(text, title=title_of(name, frame, look), title_align="left"))
