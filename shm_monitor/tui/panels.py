"""What each panel says: pure functions from a sample to rows. What stands above them all is in ``banner``."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
from rich.text import Text

from shm_monitor.snapshot.structs import LimitState, Present, Snapshot, Worker
from shm_monitor.tui.axis import Series
from shm_monitor.tui.gpus import gpus
from shm_monitor.tui.look import Look, Panel
from shm_monitor.tui.marks import AREAS, COLOURS, GREY, STYLES, blocks, heat
from shm_monitor.tui.rows import BarRow, Chart, Row, Rule, bars, gutter, table, wrapped
from shm_monitor.tui.source import Frame
from shm_monitor.units import UNKNOWN, amount, duration, human, printable, size

STALL_PERCENT_MIN = 12.5  # what the upper edge of a chart stands for at least, so that noise stays low
OWN_NAMES = "shm-monitor"  # how our own processes are called; they are grey
TRAFFIC_BYTES_MIN = 2.0**20

_NOTHING = Snapshot("", 0, 0, 0.0, 0.0, 0.0, stale=True, degraded=False, level=UNKNOWN, should_prune=False)


def sample_of(frame: Frame) -> Snapshot:
    """Return the sample to show; that of a sampler which is not live has lost what it decided."""
    snapshot = frame.snapshot or _NOTHING
    if frame.live:
        return snapshot
    undecided = [
        msgspec.structs.replace(limit, level=UNKNOWN, reasons=(), seconds_to_limit=None, since=None)
        for limit in snapshot.limits
    ]
    return msgspec.structs.replace(snapshot, level=UNKNOWN, should_prune=False, limits=undecided, present=[])


def memory(snapshot: Snapshot, look: Look) -> list[Row]:
    """Return each limit of memory as a bar with its marks; swap and /dev/shm; the history of what ends first."""
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
    chart = _memory_chart(snapshot)
    return [*bars(rows, look.width), chart, look.axis.line(chart.label)]


def _memory_chart(snapshot: Snapshot) -> Chart:
    group = snapshot.memory
    scopes = {f"memory:{name}" for name, level in group.levels.items() if level.scope == group.scope}
    limits = sorted(filter(_is_memory, snapshot.limits), key=lambda one: one.limit in scopes)
    if not limits:
        used, top = size(group.usage_bytes), float(group.capacity_bytes or 2**30)
        whole = Chart("memory", used, lambda one: one.memory.usage_bytes, "_bytes", top, grows=True)
        return whole._replace(least=4, weight=4)
    first = limits[-1]
    named = (
        (first.capacity, "capacity", "bold"),
        (first.limit_value, "limit", "red"),
        (first.target, "target", "yellow"),
    )
    rules = [Rule(value, name, style) for value, name, style in named if value is not None]
    return Chart(
        first.limit, "", _of_limit(first.limit), "_bytes", first.capacity or 1.0,
        rules=sorted(rules, key=lambda rule: -rule.value), by_level=True, least=4, weight=4,
    )  # fmt: skip


def _of_limit(name: str) -> Series:
    return lambda one: next((limit.value for limit in one.limits if limit.limit == name), None)


def cpu(snapshot: Snapshot, look: Look) -> list[Row]:
    """Return the use of the CPUs that we may use, and each core of the host."""
    group = snapshot.cpu
    rows: list[Row] = [
        Chart("cpu", human("_percent", group.cpu_percent), lambda one: one.cpu.cpu_percent, "_percent", 100.0,
              least=2, weight=3),
    ]  # fmt: skip
    if group.throttled_percent:
        rows.append(gutter("throttled", f"{group.throttled_percent:.1f} %", "yellow"))
    percents, room = list(group.core_percent.values()), len(look.axis.cells)
    for begin in range(0, len(percents), room):
        line = gutter("" if begin else "cores")
        for percent in percents[begin : begin + room]:
            line.append(blocks([percent], 1, top=100.0)[0], style=heat(percent))
        rows.append(line)
    return rows


def stall(snapshot: Snapshot, look: Look) -> list[Row]:  # noqa: ARG001 - as every panel
    """Return the pressure stall (PSI) of memory, io and cpu, in percent of our own window."""
    group = snapshot.stall
    rows: tuple[tuple[str, float | None, Series], ...] = (
        ("memory", group.memory_full_percent, lambda one: one.stall.memory_full_percent),
        ("io", group.io_full_percent, lambda one: one.stall.io_full_percent),
        ("cpu", group.cpu_some_percent, lambda one: one.stall.cpu_some_percent),
    )
    unit = "_percent"
    return [Chart(name, human(unit, now), of, unit, STALL_PERCENT_MIN, grows=True) for name, now, of in rows]


def traffic(snapshot: Snapshot, look: Look) -> list[Row]:
    """Return what goes over the network and the disks."""
    network, disk = snapshot.network, snapshot.disk
    rows: tuple[tuple[str, float | None, Series], ...] = (
        ("received", network.receive_bytes_per_second, lambda one: one.network.receive_bytes_per_second),
        ("sent", network.transmit_bytes_per_second, lambda one: one.network.transmit_bytes_per_second),
        ("read", disk.read_bytes_per_second, lambda one: one.disk.read_bytes_per_second),
        ("written", disk.write_bytes_per_second, lambda one: one.disk.write_bytes_per_second),
    )
    unit = "_bytes_per_second"
    charts = [Chart(name, human(unit, now), of, unit, TRAFFIC_BYTES_MIN, grows=True) for name, now, of in rows]
    return [*charts, look.axis.line("")]


def limits(snapshot: Snapshot, look: Look) -> list[Row]:
    """Return every limit that is set, with its numbers and reasons."""
    rows = [limit for limit in snapshot.limits if limit.limit_value is not None and look.wanted in limit.limit]
    if not rows:
        return [_nothing(snapshot, f"no limit with {look.wanted} in its name" if look.wanted else "no limit is set")]
    head = ("limit", "level", "now", "target", "limit")
    lines = table([head, *map(_limit_row, rows)], look.width, left=(0, 1))
    found: list[Row] = [lines[0]]
    for limit, line in zip(rows, lines[1:], strict=True):
        words, style = ", ".join(limit.reasons), STYLES.get(limit.level, "")
        beside = len(line) + 2 + len(words) <= look.width
        found += (
            [line.append(f"  {words}", style)] if beside else [line, *wrapped(words, look.width, style, indent="  ")]
        )
    return found


def _limit_row(limit: LimitState) -> tuple[str | Text, ...]:
    unit = limit.metric.rpartition(".")[2]
    numbers = (human(unit, one) for one in (limit.value, limit.target, limit.limit_value))
    return (limit.limit, Text(limit.level, STYLES.get(limit.level, "")), *numbers)


def workers(snapshot: Snapshot, look: Look) -> list[Row]:
    """Return the processes under the sampler's owner: pid, name, memory, share of all, CPU, bytes to shed."""
    group = snapshot.workers
    if not group.processes:
        return [_nothing(snapshot, "no worker process under the sampler's owner")]
    present = {one.pid: one for one in snapshot.present}
    shown = [one for one in sorted(group.processes, key=_ORDERS[look.sort]) if _is_wanted(one, look)]
    rows = [_worker(one, group.rss_bytes, present.get(one.pid)) for one in shown]
    lines = table([("pid", "name", "rss", "share", "cpu", "to shed"), *rows], look.width, left=(1,), wide=1)
    for one, line in zip(shown, lines[1:], strict=True):
        if one.name.startswith(OWN_NAMES):
            line.stylize(GREY)
        elif one.pid in present and present[one.pid].request_bytes:
            line.stylize("yellow")
    return list(lines)


def _is_wanted(one: Worker, look: Look) -> bool:
    return not look.wanted or look.wanted in one.name or look.wanted == str(one.pid)


def _worker(one: Worker, whole: int | None, present: Present | None) -> tuple[str, ...]:
    name = printable(f"{one.name} ({one.user})" if one.user else one.name)
    share = f"{100 * one.rss_bytes / whole:.0f} %" if whole and one.rss_bytes is not None else UNKNOWN
    request = "" if present is None else size(present.request_bytes) if present.request_bytes else UNKNOWN
    return (f"{one.pid:>7}", name, size(one.rss_bytes), share, human("_percent", one.cpu_percent), request)


def episodes(snapshot: Snapshot, look: Look) -> list[Row]:
    """Return the highest level of each moment, and how often each limit has pressed."""
    strip = Chart(
        "level", snapshot.level, lambda one: _STRIP[one.level], "", 8.0, style=AREAS["ok"], by_level=True, weight=0
    )
    rows: list[Row] = [strip]
    for limit in snapshot.limits:
        counted = {reason: count for reason, count in limit.episodes.items() if count}
        if counted:
            words = ", ".join(f"{reason} {count} times" if count > 1 else reason for reason, count in counted.items())
            since = "" if limit.since is None else time.strftime(", since %H:%M:%S", time.localtime(limit.since))
            rows += wrapped(f"{limit.limit}: {words}{since}", look.width)
    if len(rows) == 1:
        rows.append(_nothing(snapshot, "no limit has pressed since the sampler started"))
    return rows


_STRIP = {"ok": 1, "warn": 4, "prune": 8, "critical": 8}

COLUMNS: tuple[dict[str, Panel], ...] = (
    {"memory": memory, "cpu": cpu, "episodes": episodes, "limits": limits},
    {"gpus": gpus, "workers": workers, "stall": stall, "traffic": traffic},
)
PANELS: dict[str, Panel] = COLUMNS[0] | COLUMNS[1]
"""In the order in which they stand below each other on a narrow screen; their numbers are the keys."""


def title_of(name: str, frame: Frame, look: Look) -> str:
    """Return what stands over the panel *name*, and whether its numbers are false or of a sampler that is gone."""
    snapshot = frame.snapshot or _NOTHING
    words = [f"workers by {look.sort}" if name == "workers" else name]
    if name == "cpu":
        group = snapshot.cpu
        words += [f"{group.effective_count:g} cpus"] if group.effective_count is not None else []
        words += [f"host {human('_percent', group.host_cpu_percent)}"] if group.host_cpu_percent is not None else []
        words += [f"load {group.load_1:.2f}"] if group.load_1 is not None else []
    if name == "memory":
        ends = [
            (one.seconds_to_limit, one.limit)
            for one in sample_of(frame).limits
            if _is_memory(one) and one.seconds_to_limit is not None
        ]
        words += [f"{limit} full in {duration(seconds)}" for seconds, limit in sorted(ends)[:1]]
    groups = {one.partition(".")[0].partition(":")[0] for one in snapshot.injected}
    false = "  INJECTED" if groups & _GROUPS.get(name, set()) else ""
    return ", ".join(words) + false + ("" if frame.live else f"  {frame.gone}")


_GROUPS: dict[str, set[str]] = {  # the groups of metrics that a panel shows
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


def _nothing(snapshot: Snapshot, words: str) -> Text:
    """Return *words* for a panel without rows; without a sample nobody knows whether there are some."""
    return Text(UNKNOWN if snapshot.name == _NOTHING.name else words, style=GREY)


def _is_memory(limit: LimitState) -> bool:
    return limit.limit.partition(":")[0] == "memory" and bool(limit.capacity)


def _limit_bar(limit: LimitState) -> BarRow:
    capacity = limit.capacity or 1.0
    signs = ((limit.target, "┊"), (limit.limit_value, "┃"))
    marks = [(value / capacity, sign) for value, sign in signs if value is not None]
    share = None if limit.value is None else limit.value / capacity
    style = "" if limit.level == "ok" else STYLES.get(limit.level, "")
    return BarRow(
        limit.limit, share, amount(limit.value, "bytes"), f"of {size(capacity)}",
        COLOURS.get(limit.level, ""), marks, style,
    )  # fmt: skip


def _shares(label: str, used: float | None, whole: float | None) -> BarRow:
    share = used / whole if used is not None and whole else None
    return BarRow(label, share, size(used), f"of {size(whole)}")
