"""What each panel says: pure functions from a frame and its past to rich text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from rich.text import Text

from shm_monitor.snapshot.structs import Gpu, LimitState, Present, Snapshot, Worker
from shm_monitor.tui.marks import GREY, INJECTED_STYLE, STYLES, bar, spark, timeline
from shm_monitor.tui.rows import BarRow, Series, SparkRow, bars, history, joined, sparks
from shm_monitor.tui.source import Frame
from shm_monitor.units import amount, duration, human, printable, size

SORTS = ("rss", "cpu", "pid")
PLOTTED_GPUS = 2  # more of them have a line each, and no history: eight fit on a screen
OLD_INTERVALS = 2  # a sample that is older says so

_NOTHING = Snapshot("", 0, 0, 0.0, 0.0, 0.0, stale=True, degraded=False, level="ok", should_prune=False)


class Look(NamedTuple):
    """How to show: the width of a panel in cells, the samples before the frame, and what the person chose.

    Args:
        width: of the panel, in cells.
        past: oldest first, the frame's own sample last.
        sort: one of ``SORTS``.
        wanted: only workers, limits and interfaces whose name has it.
        plot_lines: how high a plot may be.
    """

    width: int
    past: Sequence[Snapshot] = ()
    sort: str = "rss"
    wanted: str = ""
    plot_lines: int = 3


def banner(frame: Frame) -> Text:
    """Return the verdict, and the reason for it; what is wrong where there is no live sampler."""
    snapshot = frame.snapshot
    if snapshot is None:
        return Text(f" NO SAMPLER ({frame.state})  {printable(frame.detail)}", style="bold white on red")
    if not frame.live:
        since = time.strftime("%H:%M:%S", time.localtime(snapshot.sampled_at))
        told = f" {frame.state.upper()} since {since}: nothing below is of now, it was {snapshot.level.upper()}. "
        return Text(told + printable(frame.detail), style=f"bold white on {GREY}")
    text = Text.assemble((f" {snapshot.level.upper()} ", f"reverse {STYLES[snapshot.level]}"))
    text.append("  shed work now  " if snapshot.should_prune else "  no need to shed  ")
    old = snapshot.age_seconds > OLD_INTERVALS * snapshot.interval_seconds
    age = f", {duration(snapshot.age_seconds)} old" if old else ""
    text.append(f"sample {snapshot.sequence}{age}", style=GREY)
    if snapshot.injected:
        text.append(f"  INJECTED: {printable(', '.join(snapshot.injected))}", style=INJECTED_STYLE)
    style = "yellow" if snapshot.level == "warn" else "bold red"
    for line in frame.why:
        text.append(f"\n {printable(line)}", style=style)
    return text


def memory(frame: Frame, look: Look) -> Text:
    """Return each limit of memory as a bar with its target, limit and capacity; swap, /dev/shm and the past below."""
    snapshot = _sample(frame)
    group = snapshot.memory
    rows = [_limit_bar(limit) for limit in snapshot.limits if _is_memory(limit)]
    if not rows:
        rows = [_shares("memory", group.usage_bytes, group.capacity_bytes)]
    host, left = group.host_total_bytes, group.host_available_bytes
    if host is not None and left is not None and all(row.label != "memory:host" for row in rows):
        rows.append(_shares("host", host - left, host))
    if group.swap_total_bytes:
        rows.append(_shares("swap", group.swap_used_bytes, group.swap_total_bytes))
    rows.append(_shares("shm", group.shm_used_bytes, group.shm_total_bytes))
    past = history(
        look.past, lambda one: one.memory.usage_percent, look.width, height=look.plot_lines, top=100.0, by_level=True
    )
    return joined([*bars(rows, look.width), *past])


def cpu(frame: Frame, look: Look) -> Text:
    """Return the use of the CPUs that we may use, its past, and each core of the host."""
    group = _sample(frame).cpu
    of = f"of {human('effective_count', group.effective_count)} cpus, load {human('load_1', group.load_1)}"
    lines = bars([_percent_bar("cpu", group.cpu_percent, of)], look.width)
    lines += history(look.past, lambda one: one.cpu.cpu_percent, look.width, height=look.plot_lines - 1, top=100.0)
    if group.throttled_percent:
        lines.append(Text(f"throttled {group.throttled_percent:.1f} %", style="yellow"))
    return joined([*lines, *_cores(list(group.core_percent.values()), look.width)])


def _cores(percents: Sequence[float | None], width: int) -> Iterable[Text]:
    room = max(width - len("cores "), 1)
    for begin in range(0, len(percents), room):
        line = Text("cores " if begin == 0 else "      ")
        for percent in percents[begin : begin + room]:
            line.append(spark([percent], 1, top=100.0), style=_heat(percent))
        yield line


def stall(frame: Frame, look: Look) -> Text:
    """Return the pressure stall (PSI) of memory, io and cpu, in percent of our own window."""
    group = _sample(frame).stall
    rows: tuple[tuple[str, float | None, Series], ...] = (
        ("memory", group.memory_full_percent, lambda one: one.stall.memory_full_percent),
        ("io", group.io_full_percent, lambda one: one.stall.io_full_percent),
        ("cpu", group.cpu_some_percent, lambda one: one.stall.cpu_some_percent),
    )
    return joined(
        sparks([SparkRow(name, human("_percent", now), of, 100.0) for name, now, of in rows], look.past, look.width)
    )


def traffic(frame: Frame, look: Look) -> Text:
    """Return what goes over the network and the disks."""
    snapshot = _sample(frame)
    network, disk = snapshot.network, snapshot.disk
    rows: tuple[tuple[str, float | None, Series], ...] = (
        ("received", network.receive_bytes_per_second, lambda one: one.network.receive_bytes_per_second),
        ("sent", network.transmit_bytes_per_second, lambda one: one.network.transmit_bytes_per_second),
        ("read", disk.read_bytes_per_second, lambda one: one.disk.read_bytes_per_second),
        ("written", disk.write_bytes_per_second, lambda one: one.disk.write_bytes_per_second),
    )
    told = [SparkRow(name, human("_bytes_per_second", now), of) for name, now, of in rows]
    return joined(sparks(told, look.past, look.width))


def gpus(frame: Frame, look: Look) -> Text:
    """Return each GPU: utilization, memory, power, temperature, what holds its clocks down; of few their past, too."""
    snapshot = _sample(frame)
    if not snapshot.gpus:
        return Text(snapshot.unavailable.get("gpu", "no GPU"), style=GREY)
    names = [
        f"{sum(one.name == name for one in snapshot.gpus)} x {name}" for name in {g.name: 0 for g in snapshot.gpus}
    ]
    lines = [Text(", ".join(names), style=GREY)]
    for gpu in snapshot.gpus:
        lines += _gpu(gpu, look, plotted=len(snapshot.gpus) <= PLOTTED_GPUS)
    return joined(lines)


def _gpu(gpu: Gpu, look: Look, *, plotted: bool) -> Iterable[Text]:
    use = f" {human('_percent', gpu.utilization_percent):>7} "
    memory_told = f"{size(gpu.memory_used_bytes)}/{size(gpu.memory_total_bytes)}"
    heat = f"{human('_celsius', gpu.temperature_celsius)} {human('_watts', gpu.power_watts)}"
    told = f" {memory_told:>15} {heat:>11}"
    label = f"gpu {gpu.instance:2} "
    cells = max((look.width - len(label) - len(use) - len(told)) // 2, 4)
    share = None if gpu.utilization_percent is None else gpu.utilization_percent / 100
    held = gpu.memory_used_bytes / gpu.memory_total_bytes if gpu.memory_used_bytes and gpu.memory_total_bytes else None
    line = Text(label) + bar(share, cells, style=_heat(gpu.utilization_percent)) + use
    yield line + bar(held, cells, style="cyan") + told
    if plotted:
        room = max((look.width - len(label) - 2) // 2, 4)
        left = history(look.past, _of_gpu(gpu, lambda one: one.utilization_percent), room, height=1, top=100.0)
        whole = float(gpu.memory_total_bytes or 1)
        right = history(look.past, _of_gpu(gpu, lambda one: one.memory_used_bytes), room, height=1, top=whole)
        yield Text(" " * len(label)) + left[0] + "  " + right[0]
    if gpu.throttle_reasons:
        yield Text(f"{'':{len(label)}}throttled: {', '.join(gpu.throttle_reasons)}", style="yellow")


def _of_gpu(gpu: Gpu, field: Callable[[Gpu], float | None]) -> Series:
    return lambda one: next((field(other) for other in one.gpus if other.instance == gpu.instance), None)


def limits(frame: Frame, look: Look) -> Text:
    """Return every limit that is set, with its numbers and reasons."""
    rows = [limit for limit in _sample(frame).limits if limit.limit_value is not None and look.wanted in limit.limit]
    if not rows:
        return Text("no limit is set", style=GREY)
    width = max(len(limit.limit) for limit in rows)
    head = Text(f"{'':{width}} {'':8} {'now':>8} {'target':>8} {'limit':>8}", style=GREY)
    return joined([head, *(_limit_row(limit, width) for limit in rows)])


def workers(frame: Frame, look: Look) -> Text:
    """Return the processes under the sampler's owner: pid, name, memory, share of all, CPU, bytes asked for."""
    group = _sample(frame).workers
    asked = {one.pid: one for one in _sample(frame).present}
    if not group.processes:
        return Text("no worker process under the sampler's owner", style=GREY)
    room = max(look.width - 44, 8)
    head = Text(f"{'pid':>7} {'command':{room}} {'rss':>9} {'share':>5} {'cpu':>8} {'asked':>9}", style=GREY)
    rows = [one for one in sorted(group.processes, key=_ORDERS[look.sort]) if _is_wanted(one, look)]
    lines = [_worker(one, group.rss_bytes, asked.get(one.pid), room) for one in rows]
    return joined([head, *lines])


def _is_wanted(one: Worker, look: Look) -> bool:
    return not look.wanted or look.wanted in one.name or look.wanted == str(one.pid)


def _worker(one: Worker, whole: int | None, present: Present | None, room: int) -> Text:
    name = printable(f"{one.name} ({one.user})" if one.user else one.name)
    share = f"{100 * one.rss_bytes / whole:.0f} %" if whole and one.rss_bytes is not None else "-"
    cpu_told = human("_percent", one.cpu_percent)
    asked = "" if present is None else size(present.request_bytes) if present.request_bytes else "-"
    line = f"{one.pid:>7} {name[:room]:{room}} {size(one.rss_bytes):>9} {share:>5} {cpu_told:>8} {asked:>9}"
    return Text(line, style="yellow" if present is not None and present.request_bytes else "")


def episodes(frame: Frame, look: Look) -> Text:
    """Return the level of each sample as a strip, and how often each limit has pressed."""
    lines = [timeline([one.level for one in look.past], max(look.width, 10))]
    for limit in _sample(frame).limits:
        counted = {reason: count for reason, count in limit.episodes.items() if count}
        if counted:
            told = ", ".join(f"{reason} {count} times" if count > 1 else reason for reason, count in counted.items())
            since = "" if limit.since is None else time.strftime(", since %H:%M:%S", time.localtime(limit.since))
            lines.append(Text(f"{limit.limit}: {told}{since}"))
    if len(lines) == 1:
        lines.append(Text("nothing has pressed since the sampler started", style=GREY))
    return joined(lines)


def title_of(name: str, frame: Frame, look: Look) -> str:
    """Return what stands over the panel *name*: how it is sorted, how far back it goes, and whether it is false."""
    told = name
    if name == "workers":
        told += f" by {look.sort}"
    elif name in {"memory", "cpu", "episodes"} and len(look.past) > 1:
        cells = look.width if name == "episodes" else 2 * look.width
        shown = look.past[-cells:]
        told += f", {duration(round(shown[-1].sampled_at - shown[0].sampled_at))}"
    groups = {one.partition(".")[0].partition(":")[0] for one in _sample(frame).injected}
    return f"{told}  INJECTED" if groups & _GROUPS.get(name, set()) else told


_GROUPS: dict[str, set[str]] = {  # whose readings a panel shows
    "memory": {"memory"},
    "cpu": {"cpu"},
    "gpus": {"gpu"},
    "traffic": {"network", "disk"},
    "stall": {"stall"},
    "limits": {"memory", "cpu", "gpu", "network"},
    "episodes": {"memory", "cpu", "gpu", "network"},
    "workers": {"workers"},
}
_ORDERS: dict[str, Callable[[Worker], float]] = {
    "rss": lambda one: -(one.rss_bytes or 0),
    "cpu": lambda one: -(one.cpu_percent or 0.0),
    "pid": lambda one: one.pid,
}


def _sample(frame: Frame) -> Snapshot:
    return frame.snapshot or _NOTHING


def _is_memory(limit: LimitState) -> bool:
    return limit.limit.partition(":")[0] == "memory" and bool(limit.capacity)


def _limit_bar(limit: LimitState) -> BarRow:
    capacity = limit.capacity or 1.0
    signs = ((limit.target, "┊"), (limit.limit_value, "┃"))
    marks = [(value / capacity, sign) for value, sign in signs if value is not None]
    share = None if limit.value is None else limit.value / capacity
    ahead = "" if limit.seconds_to_limit is None else f", full in {duration(limit.seconds_to_limit)}"
    colour = STYLES[limit.level].split(" on ")[0]
    told = f"{amount(limit.value, 'bytes')} of {size(capacity)}{ahead}"
    return BarRow(limit.limit, share, told, colour, marks, "" if limit.level == "ok" else STYLES[limit.level])


def _shares(label: str, used: float | None, whole: float | None) -> BarRow:
    share = used / whole if used is not None and whole else None
    return BarRow(label, share, f"{size(used)} of {size(whole)}")


def _percent_bar(label: str, percent: float | None, told: str) -> BarRow:
    share = None if percent is None else percent / 100
    return BarRow(label, share, f"{human('_percent', percent)} {told}", _heat(percent))


def _limit_row(limit: LimitState, width: int) -> Text:
    unit = limit.metric.rpartition(".")[2]
    now, target, most = (human(unit, one) for one in (limit.value, limit.target, limit.limit_value))
    text = Text(f"{limit.limit:{width}} ") + Text(f"{limit.level:8}", style=STYLES[limit.level])
    text.append(f" {now:>8} {target:>8} {most:>8}")
    return text.append(f"  {', '.join(limit.reasons)}", style=STYLES[limit.level]) if limit.reasons else text


def _heat(percent: float | None) -> str:
    return "red" if (percent or 0.0) >= 90 else "yellow" if (percent or 0.0) >= 70 else "green"
