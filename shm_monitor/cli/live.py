"""The small live view of ``shm-monitor run`` in a terminal: one screen, rewritten in place once a second."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TextIO

from shm_monitor.errors import SegmentError
from shm_monitor.units import size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shm_monitor.snapshot.structs import Gpu, LimitState, Snapshot
    from shm_monitor.worker.reader import Reader

BAR_WIDTH = 24
_COLOURS = {"ok": "32", "warn": "33", "prune": "31", "critical": "1;31"}
_UP_AND_CLEAR = "\x1b[{}F\x1b[J"  # ECMA-48: cursor to the line that the view began on, erase below


class LiveView:
    """Draws over its own last drawing, so what was printed before stays."""

    def __init__(self, out: TextIO, environ: Mapping[str, str] = os.environ) -> None:
        """Draw on *out*, a terminal; without colour where ``NO_COLOR`` is set."""
        self._out = out
        self._colour = not environ.get("NO_COLOR")
        self._lines_drawn = 0

    def show(self, reader: Reader) -> None:
        """Draw the newest sample of *reader*."""
        try:
            lines = self._lines(reader.snapshot())
        except SegmentError as error:
            lines = [str(error)]
        before = _UP_AND_CLEAR.format(self._lines_drawn) if self._lines_drawn else ""
        self._out.write(before + "\n".join(lines) + "\n")
        self._out.flush()
        self._lines_drawn = len(lines)

    def end(self) -> None:
        """Leave the last drawing where it is."""
        self._out.write("stopping\n")
        self._out.flush()

    def _lines(self, snapshot: Snapshot) -> list[str]:
        memory, stall = snapshot.memory, snapshot.stall
        age = f"{snapshot.age_seconds:.1f} s ago" + (", STALE" if snapshot.stale else "")
        verdict = self._painted(snapshot.level.upper(), snapshot.level)
        of_memory = f"{size(memory.usage_bytes)} of {size(memory.capacity_bytes)} ({memory.scope or 'unknown scope'})"
        stalls = (("memory", stall.memory_full_percent), ("io", stall.io_full_percent), ("cpu", stall.cpu_some_percent))
        received, sent = snapshot.network.receive_bytes_per_second, snapshot.network.transmit_bytes_per_second
        return [
            f"shm-monitor {snapshot.name}: {verdict}   sample {snapshot.sequence}, {age}   Ctrl-C stops",
            f"  cpu      {bar(snapshot.cpu.cpu_percent)}  of {known(snapshot.cpu.effective_count, '{:g}')} cpus",
            f"  memory   {bar(memory.usage_percent)}  {of_memory}",
            f"  stall    {', '.join(f'{name} ' + known(percent, '{:.1f} %') for name, percent in stalls)}",
            f"  network  {size(received)}/s in, {size(sent)}/s out",
            *map(_gpu_text, snapshot.gpus),
            *(f"  limit    {self._limit_text(limit)}" for limit in snapshot.limits),
        ]

    def _limit_text(self, limit: LimitState) -> str:
        reasons = f" ({', '.join(limit.reasons)})" if limit.reasons else ""
        return f"{limit.limit}: {self._painted(limit.level, limit.level)}{reasons}"

    def _painted(self, text: str, level: str) -> str:
        return f"\x1b[{_COLOURS.get(level, '0')}m{text}\x1b[0m" if self._colour else text


def _gpu_text(gpu: Gpu) -> str:
    memory = f"{size(gpu.memory_used_bytes)} of {size(gpu.memory_total_bytes)}"
    return f"  gpu {gpu.instance:4} {bar(gpu.utilization_percent)}  {memory}  {gpu.name}"


def bar(percent: float | None) -> str:
    """Return *percent* as a bar with its number; a blank one for unknown."""
    if percent is None:
        return f"[{'?' * BAR_WIDTH}]   -    "
    full = round(min(max(percent, 0.0), 100.0) / 100 * BAR_WIDTH)
    return f"[{'#' * full}{'.' * (BAR_WIDTH - full)}] {percent:5.1f} %"


def known(value: float | None, pattern: str) -> str:
    """Return *value* by *pattern*, or a dash for unknown."""
    return "-" if value is None else pattern.format(value)
