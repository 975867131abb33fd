"""What ``e`` shows: the reasons, and of each limit the numbers behind its verdict and what would end its reasons."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from shm_monitor.snapshot.structs import LimitState, Snapshot
from shm_monitor.tui.banner import banner
from shm_monitor.tui.marks import GREY, STYLES
from shm_monitor.tui.panels import sample_of
from shm_monitor.tui.rows import wrapped
from shm_monitor.tui.source import Frame
from shm_monitor.units import amount, duration, human, size

_ENDS = {
    "level": "when a whole period was below the target",
    "forecast": "when no forecast has reached the capacity for a period",
    "capacity": "when a whole period was below 97 % of the capacity",
    "event": "when the kernel has counted no reclaim and no OOM kill for a period",
    "unknown": "when its collector reads it again",
}


def explanation(frame: Frame, width: int) -> Text:
    """Return the verdict on *frame* with its numbers, in lines of *width* cells."""
    snapshot = sample_of(frame)
    head = banner(frame, width, len(frame.why))
    if frame.live and not frame.why:
        head.append(Text(" no limit asks for less work", style=GREY))
    lines = [line for limit in snapshot.limits for line in (Text(), *_limit(limit, snapshot, width))]
    requests = [one for one in snapshot.present if one.request_bytes]
    lines += [Text()] if requests else []
    for one in requests:
        words = f"worker {one.pid} is to give back {size(one.request_bytes)} of {size(one.held_bytes)} ({one.limit})"
        lines += wrapped(words, width)
    return Text("\n").join([*head, *(lines if frame.live else [Text(line.plain, style=GREY) for line in lines])])


def _limit(limit: LimitState, snapshot: Snapshot, width: int) -> Iterable[Text]:
    unit = limit.metric.rpartition(".")[2]
    yield Text(f"{limit.limit}  ", style="bold").append(limit.level, STYLES.get(limit.level, GREY))
    period = _numbers((("mean", limit.mean), ("highest", limit.maximum)), unit)
    yield from _line([f"now {human(unit, limit.value)}", period and f"over the period {period}"], width)
    bars = (("target", limit.target), ("limit", limit.limit_value), ("capacity", limit.capacity))
    yield from _line([_numbers(bars, unit)], width)
    yield from _line([_headroom(limit, unit), _slope(limit, snapshot, unit)], width)
    for reason in limit.reasons:
        yield from wrapped(f"{reason} ends {_ENDS[reason]}", width, STYLES.get(limit.level, ""), indent="  ")


def _line(parts: Iterable[str], width: int) -> list[Text]:
    return wrapped("; ".join(filter(None, parts)), width, indent="  ")


def _numbers(named: Iterable[tuple[str, float | None]], unit: str) -> str:
    return ", ".join(f"{name} {human(unit, number)}" for name, number in named if number is not None)


def _headroom(limit: LimitState, unit: str) -> str:
    if limit.value is None or limit.limit_value is None:
        return ""
    left = limit.limit_value - limit.value
    return f"{human(unit, abs(left))} {'below' if left >= 0 else 'over'} the limit"


def _slope(limit: LimitState, snapshot: Snapshot, unit: str) -> str:
    rolled = snapshot.rolled.get(limit.metric)
    if rolled is None or not rolled.slope:
        return ""
    ahead = "" if limit.seconds_to_limit is None else f", at its capacity in {duration(limit.seconds_to_limit)}"
    return f"{'rises' if rolled.slope > 0 else 'falls'} by {_rate(abs(rolled.slope), unit)}{ahead}"


def _rate(slope: float, unit: str) -> str:
    return f"{amount(slope, 'bytes')}/s" if unit.endswith("bytes") else f"{human(unit, slope)} a second"
