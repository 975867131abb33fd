"""The view without textual: one line per change of the verdict, on any terminal and in any log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from shm_monitor.tui.source import Frame, Source
from shm_monitor.units import amount, printable

TURN_SECONDS = 1.0


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
    """Print a line when the state, the level or a reason changes, until *wait* returns true."""
    last: tuple[object, ...] = ()
    while True:
        frame = source.newest()
        snapshot = frame.snapshot
        reasons = () if snapshot is None else tuple((one.limit, one.reasons) for one in snapshot.limits if one.reasons)
        news = (frame.state, frame.live, snapshot and snapshot.level, reasons)
        if news != last:
            out.write(f"{time.strftime('%H:%M:%S')} {line_of(frame)}\n")
            out.flush()
        last = news
        if wait(TURN_SECONDS):
            return
