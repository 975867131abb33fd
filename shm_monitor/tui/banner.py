"""What stands above the panels: the name of the sampler, its verdict, and the reasons."""

from __future__ import annotations

import time

from rich.text import Text

from shm_monitor.tui.marks import GREY, INJECTED_STYLE, STYLES
from shm_monitor.tui.rows import wrapped
from shm_monitor.tui.source import Frame
from shm_monitor.units import duration

OLD_INTERVALS = 2  # a sample that is older says so
INJECTED_LINES = 2


def heading(title: str, url: str, behind: int | None, width: int) -> Text:
    """Return the name of the sampler, how many samples *behind* the newest the view is paused, and its address."""
    text = Text(f" {title}", style="bold")
    if behind is not None:
        text.append(f"  PAUSED, {behind} samples back; space goes on", style="reverse")
    text.truncate(width, overflow="ellipsis")
    return text.append("  ").append(url, style="underline") if url and len(text) + 2 + len(url) <= width else text


def banner(frame: Frame, width: int, most: int) -> list[Text]:
    """Return the verdict with up to *most* of its reasons; what is wrong where there is no live sampler."""
    snapshot = frame.snapshot
    if snapshot is None:
        return wrapped(f" NO SAMPLER ({frame.state})  {frame.detail}", width, "bold white on red")
    if not frame.live:
        since = time.strftime("%H:%M:%S", time.localtime(snapshot.sampled_at))
        words = f" {frame.gone} since {since}: the numbers below are old; {frame.detail}".removesuffix("; ")
        return wrapped(words, width, "bold white on grey30")
    verdict = "  shed work now  " if snapshot.should_prune else "  no need to shed  "
    old = snapshot.age_seconds > OLD_INTERVALS * snapshot.interval_seconds
    age = f", {duration(snapshot.age_seconds)} old" if old else ""
    head = Text.assemble((f" {snapshot.level.upper()} ", f"reverse {STYLES[snapshot.level]}"))
    lines = [head.append(verdict).append(f"sample {snapshot.sequence}{age}", style=GREY)]
    if snapshot.injected:
        names = ", ".join(snapshot.injected)
        lines += wrapped(f"INJECTED: {names}", width, INJECTED_STYLE, indent=" ", most=INJECTED_LINES)
    style = "yellow" if snapshot.level == "warn" else "bold red"
    for line in frame.why[:most]:
        lines += wrapped(line, width, style, indent=" ")
    if len(frame.why) > most:
        lines.append(Text(f" and {len(frame.why) - most} more: press e", style=style))
    return lines
