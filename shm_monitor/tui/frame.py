"""One frame without a screen: for ``top --once``, pipes and bug reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.panel import Panel

from shm_monitor.snapshot.structs import Snapshot
from shm_monitor.tui import panels
from shm_monitor.tui.app import PANELS
from shm_monitor.tui.panels import Look
from shm_monitor.tui.source import Frame

BORDER = 4  # cells that the frame of a panel takes


def print_frame(frame: Frame, past: Sequence[Snapshot], out: TextIO, *, width: int | None = None) -> None:
    """Print *frame* on *out*: the banner, then each panel; plain where it is no terminal."""
    console = Console(file=out, width=width, highlight=False, soft_wrap=False)
    look = Look(console.width - BORDER, past)
    console.print(panels.banner(frame))
    if frame.snapshot is None:
        return
    for name, panel in PANELS.items():
        if name == "gpus" and not frame.snapshot.gpus:
            continue
        console.print(Panel(panel(frame, look), title=panels.title_of(name, frame, look), title_align="left"))
