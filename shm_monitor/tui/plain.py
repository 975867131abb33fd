"""The view without textual: one line per change of the verdict, on any terminal and in any log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from shm_monitor.tui.source import Frame, Source
from shm_monitor.units import amount, printable

TURN_SECONDS = 1.0


class PlainView:
    """Prints a line when the state, the level or a reason changes."""

    def __init__(self, out: TextIO) -> None:
        """Print on *out*."""
        self._out = out
        self._last: tuple[object, ...] = ()

    def show(self, frame: Frame) -> None:
        """Print a line if *frame* says something new."""
        snapshot = frame.snapshot
        reasons = () if snapshot is None else tuple((one.limit, one.reasons) for one in snapshot.limits if one.reasons)
        news = (frame.state, frame.live, snapshot and snapshot.level, reasons)
        if news == self._last:
            return
        self._last = news
        self._out.write(f"{time.strftime('%H:%M:%S')} {line_of(frame)}\n")
        self._out.flush()


def line_of(frame: Frame) -> str:
    """Return *frame* in one line."""
    snapshot = frame.snapshot
    if snapshot is None or not frame.live:
        return printable(f"{frame.state}: {frame.detail or 'no live sampler'}")
    memory = snapshot.memory
    head = f"{snapshot.level}: memory {amount(memory.usage_bytes, 'bytes')} of {amount(memory.capacity_bytes, 'bytes')}"
    marks = [f"injected: {', '.join(snapshot.injected)}"] if snapshot.injected else []
    return printable("; ".join([head, *frame.why, *marks]))


def follow(source: Source, out: TextIO, wait: Callable[[float], bool]) -> None:
    """Print what changes until *wait* says that it is time to stop."""
    view = PlainView(out)
    while True:
        view.show(source.newest())
        if wait(TURN_SECONDS):
            return
