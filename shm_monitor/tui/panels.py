"""What each panel says: pure functions from a frame and its past to rich text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from rich.text import Text

from shm_monitor.snapshot.structs import Gpu, LimitState, Present, Snapshot, Worker
from shm_monitor.tui.marks import GREY, INJECTED_STYLE, STYLES, bar, spark, timeline
from shm_monitor.tui.source import Frame
from shm_monitor.units import amount, duration, human, printable, size

LABEL = 9
SORTS = ("rss", "cpu", "pid")
Series = Callable[[Snapshot], float | None]

_NOTHING = Snapshot("", 0, 0, 0.0, 0.0, 0.0, stale=True, degraded=False, level="ok", should_prune=False)


class Look(NamedTuple):
    """How to show: the width of a panel in cells, the samples before the frame, and what the person chose.

    Args:
        width: of the panel, in cells.
        past: oldest first, the frame's own sample last.
        sort: one of :data:`SORTS`.
        wanted: only workers, limits and interfaces whose name has it.
        names: the command of a process by its pid, as far as known here.
    """

    width: int
    past: Sequence[Snapshot] = ()
    sort: str = "rss"
    wanted: str = ""
    names: Mapping[int, str] = {}


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
    text.append(f"sample {snapshot.sequence}, {duration(snapshot.age_seconds)} old", style=GREY)
    if snapshot.injected:
        text.append(f"  INJECTED: {printable(', '.join(snapshot.injected))}", style=INJECTED_STYLE)
    style = "yellow" if snapshot.level == "warn" else "bold red"
    for line in frame.why:
        text.append(f"\n {printable(line)}", style=style)
    return text


def memory(frame: Frame, look: Look) -> Text:
    """Return each limit of memory as a bar with its target, limit and capacity; host, swap and /dev/shm beside."""
    snapshot = _sample(frame)
    group = snapshot.memory
    lines = [_limit_bar(limit, look) for limit in snapshot.limits if _is_memory(limit)]
    if not lines:
        lines = [_shares("memory", group.usage_bytes, group.capacity_bytes, look)]
    lines.append(_history(look, lambda one: one.memory.usage_percent, top=100.0))
    if group.host_total_bytes is not None and group.host_available_bytes is not None:
        lines.append(_shares("host", group.host_total_bytes - group.host_available_bytes, group.host_total_bytes, look))
    if group.swap_total_bytes:
        lines.append(_shares("swap", group.swap_used_bytes, group.swap_total_bytes, look))
    lines.append(_shares("shm", group.shm_used_bytes, group.shm_total_bytes, look))
    return _joined(lines)


def cpu(frame: Frame, look: Look) -> Text:
    """Return the use of the CPUs that we may use, and of each core of the host."""
    group = _sample(frame).cpu
    of = f"of {human('effective_count', group.effective_count)} cpus, load {human('load_1', group.load_1)}"
    lines = [_percent_bar("cpu", group.cpu_percent, of, look)]
    lines.append(_history(look, lambda one: one.cpu.cpu_percent, top=100.0))
    if group.throttled_percent:
        lines.append(Text(f"{'throttled':{LABEL}} {group.throttled_percent:.1f} %", style="yellow"))
    cores = Text(f"{'cores':{LABEL}} ")
    for percent in group.core_percent.values():
        cores.append(spark([percent], 1, top=100.0), style=_heat(percent))
    lines.append(cores)
    return _joined(lines)


def stall(frame: Frame, look: Look) -> Text:
    """Return the pressure stall (PSI) of memory, io and cpu, in percent of our own window."""
    group = _sample(frame).stall
    rows: tuple[tuple[str, float | None, Series], ...] = (
        ("memory", group.memory_full_percent, lambda one: one.stall.memory_full_percent),
        ("io", group.io_full_percent, lambda one: one.stall.io_full_percent),
        ("cpu", group.cpu_some_percent, lambda one: one.stall.cpu_some_percent),
    )
    return _joined(_rate(name, f"{human('_percent', value)}", look, of, top=100.0) for name, value, of in rows)


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
    return _joined(_rate(name, human("_bytes_per_second", value), look, of) for name, value, of in rows)


def gpus(frame: Frame, look: Look) -> Text:
    """Return each GPU: utilization, memory, power, temperature, what holds its clocks down."""
    snapshot = _sample(frame)
    if not snapshot.gpus:
        return Text(snapshot.unavailable.get("gpu", "no GPU"), style=GREY)
    return _joined(line for gpu in snapshot.gpus for line in _gpu(gpu, look))


def limits(frame: Frame, look: Look) -> Text:
    """Return every limit that is set, with its numbers and reasons."""
    rows = [limit for limit in _sample(frame).limits if limit.limit_value is not None and look.wanted in limit.limit]
    if not rows:
        return Text("no limit is set", style=GREY)
    width = max(len(limit.limit) for limit in rows)
    return _joined(_limit_row(limit, width) for limit in rows)


def workers(frame: Frame, look: Look) -> Text:
    """Return the processes under the sampler's owner: pid, command, memory, share of all, CPU."""
    group = _sample(frame).workers
    asked = {one.pid: one for one in _sample(frame).present}
    if not group.processes:
        return Text("no worker process under the sampler's owner", style=GREY)
    head = Text(
        f"{'pid':>8} {'command':15} {'rss':>9} {'share':>6} {'cpu':>8} {'asked':>9}   by {look.sort}", style=GREY
    )
    rows = [one for one in sorted(group.processes, key=_ORDERS[look.sort]) if _is_wanted(one, look)]
    return _joined(
        [head, *(_worker(one, look.names.get(one.pid, ""), group.rss_bytes, asked.get(one.pid)) for one in rows)]
    )


def _is_wanted(one: Worker, look: Look) -> bool:
    return not look.wanted or look.wanted in look.names.get(one.pid, "") or look.wanted == str(one.pid)


def _worker(one: Worker, name: str, whole: int | None, present: Present | None) -> Text:
    share = f"{100 * one.rss_bytes / whole:.0f} %" if whole and one.rss_bytes is not None else "-"
    cpu_told = human("_percent", one.cpu_percent)
    asked = "" if present is None else size(present.request_bytes) if present.request_bytes else "-"
    return Text(f"{one.pid:>8} {name[:15]:15} {size(one.rss_bytes):>9} {share:>6} {cpu_told:>8} {asked:>9}")


def episodes(frame: Frame, look: Look) -> Text:
    """Return the level of each sample as a strip, and how often each limit has pressed."""
    lines = [timeline([one.level for one in look.past], max(look.width - 2, 10))]
    for limit in _sample(frame).limits:
        counted = {reason: count for reason, count in limit.episodes.items() if count}
        if counted:
            told = ", ".join(f"{reason} {count} times" if count > 1 else reason for reason, count in counted.items())
            since = "" if limit.since is None else time.strftime(", since %H:%M:%S", time.localtime(limit.since))
            lines.append(Text(f"{limit.limit}: {told}{since}"))
    if len(lines) == 1:
        lines.append(Text("nothing has pressed since the sampler started", style=GREY))
    return _joined(lines)


_ORDERS: dict[str, Callable[[Worker], float]] = {
    "rss": lambda one: -(one.rss_bytes or 0),
    "cpu": lambda one: -(one.cpu_percent or 0.0),
    "pid": lambda one: one.pid,
}


def _sample(frame: Frame) -> Snapshot:
    return frame.snapshot or _NOTHING


def _is_memory(limit: LimitState) -> bool:
    return limit.limit.partition(":")[0] == "memory" and bool(limit.capacity)


def _limit_bar(limit: LimitState, look: Look) -> Text:
    capacity = limit.capacity or 1.0
    signs = ((limit.target, "┊"), (limit.limit_value, "┃"))
    marks = [(value / capacity, sign) for value, sign in signs if value is not None]
    share = None if limit.value is None else limit.value / capacity
    ahead = "" if limit.seconds_to_limit is None else f", full in {duration(limit.seconds_to_limit)}"
    colour = STYLES[limit.level].split(" on ")[0]
    text = Text(f"{limit.limit:{LABEL}} ") + bar(share, _bar_width(look), style=colour, marks=marks)
    told = f" {amount(limit.value, 'bytes')} of {size(capacity)}{ahead}"
    return text.append(told, style="" if limit.level == "ok" else STYLES[limit.level])


def _shares(label: str, used: float | None, whole: float | None, look: Look) -> Text:
    share = used / whole if used is not None and whole else None
    return Text(f"{label:{LABEL}} ") + bar(share, _bar_width(look), style="cyan") + f" {size(used)} of {size(whole)}"


def _percent_bar(label: str, percent: float | None, told: str, look: Look) -> Text:
    share = None if percent is None else percent / 100
    text = Text(f"{label:{LABEL}} ") + bar(share, _bar_width(look), style=_heat(percent))
    return text.append(f" {human('_percent', percent)} {told}")


def _history(look: Look, of: Series, *, top: float | None = None) -> Text:
    line = spark([of(one) for one in look.past], _bar_width(look), top=top)
    return Text(" " * (LABEL + 1)) + Text(line, style="cyan")


def _rate(label: str, told: str, look: Look, of: Series, *, top: float | None = None) -> Text:
    line = spark([of(one) for one in look.past], _bar_width(look), top=top)
    return Text(f"{label:{LABEL}} ") + Text(line, style="cyan") + f" {told}"


def _gpu(gpu: Gpu, look: Look) -> Iterable[Text]:
    name = f"gpu {gpu.instance}"
    heat = f"{human('_celsius', gpu.temperature_celsius)}, {human('_watts', gpu.power_watts)}"
    yield _percent_bar(name, gpu.utilization_percent, f"{heat}  {gpu.name}", look)

    def used(one: Snapshot) -> float | None:
        return next((other.utilization_percent for other in one.gpus if other.instance == gpu.instance), None)

    yield _history(look, used, top=100.0)
    yield _shares("  memory", gpu.memory_used_bytes, gpu.memory_total_bytes, look)
    if gpu.throttle_reasons:
        yield Text(f"{'':{LABEL}} throttled: {', '.join(gpu.throttle_reasons)}", style="yellow")


def _limit_row(limit: LimitState, width: int) -> Text:
    unit = limit.metric.rpartition(".")[2]
    told = f"{human(unit, limit.value)}, target {human(unit, limit.target)}, limit {human(unit, limit.limit_value)}"
    text = Text(f"{limit.limit:{width}} ") + Text(f"{limit.level:8}", style=STYLES[limit.level])
    text.append(f" {told}")
    return text.append(f"  {', '.join(limit.reasons)}", style=STYLES[limit.level]) if limit.reasons else text


def _bar_width(look: Look) -> int:
    return max(min(look.width - LABEL - 34, 60), 10)


def _heat(percent: float | None) -> str:
    return "red" if (percent or 0.0) >= 90 else "yellow" if (percent or 0.0) >= 70 else "green"


def _joined(lines: Iterable[Text]) -> Text:
    return Text("\n").join(map(_inert, lines))


def _inert(line: Text) -> Text:
    """Return *line* with nothing in it that a terminal obeys: names of limits and GPUs come from elsewhere."""
    return line if line.plain.isprintable() else Text(printable(line.plain))
