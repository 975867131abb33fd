"""What decisions over a trace come to: episodes, time at each level, warning before the peak; and two compared."""

from __future__ import annotations

import msgspec

from shm_monitor.units import amount, duration

OVERALL = "overall"


class Episode(msgspec.Struct, frozen=True):
    """One time of pressing, from the first sample at prune or above to the first one below.

    Args:
        begin_seconds: from the start of the trace.
        end_seconds: None when the trace ends before it does.
        begin_time: unix time of the begin; for a table of text its own time.
        level: the highest in it.
        reasons: all that were set in it, the first ones first.
        value: the reading at the begin; mean, limit, capacity and seconds to the limit likewise. None for unknown.
        peak_value: the highest reading in it.
    """

    begin_seconds: float
    end_seconds: float | None
    begin_time: float
    level: str
    reasons: tuple[str, ...]
    value: float | None
    mean: float | None
    limit: float | None
    capacity: float | None
    seconds_to_limit: float | None
    peak_value: float | None


class LimitReport(msgspec.Struct, frozen=True):
    """What became of one limit, or of all together (``overall``, which has no readings of its own).

    Args:
        name: of the limit.
        metric: what it looks at; unit is that of its readings.
        limit: the effective one at the end; None for unknown.
        seconds_at: seconds at each level, and ``unknown``; gaps of the trace count nowhere.
        episodes: in order.
        first_prune_seconds: from the start of the trace; None when it never pressed.
        peak_value: the highest reading, at peak_seconds.
        seconds_before_peak: how long it had pressed when the peak came; None when it did not press then.
    """

    name: str
    metric: str
    unit: str
    limit: float | None
    seconds_at: dict[str, float]
    episodes: tuple[Episode, ...]
    first_prune_seconds: float | None
    peak_value: float | None
    peak_seconds: float | None
    seconds_before_peak: float | None

    @property
    def pressed_seconds(self) -> float:
        """Seconds at prune or above."""
        return self.seconds_at["prune"] + self.seconds_at["critical"]


class Report(msgspec.Struct, frozen=True):
    """What a configuration decides over a trace.

    Args:
        source: the file.
        samples_count: how many were decided over; damaged_count were left out.
        seconds: from the first to the last.
        gap_seconds: the part of it in which no sample was taken for more than a period.
        limits: ``overall`` first, then each limit.
    """

    source: str
    samples_count: int
    damaged_count: int
    seconds: float
    gap_seconds: float
    limits: tuple[LimitReport, ...]

    @property
    def heading(self) -> str:
        """What was decided over, in one line."""
        head = f"{self.source}: {self.samples_count} samples over {duration(self.seconds)}"
        if self.gap_seconds:
            head += f", {duration(self.gap_seconds)} of it without samples"
        if self.damaged_count:
            head += f", {self.damaged_count} damaged ones left out"
        return head

    def text(self) -> str:
        """Return the report for people, without a newline at the end."""
        return "\n\n".join([self.heading, *(_limit_text(limit) for limit in self.limits)])


class Change(msgspec.Struct, frozen=True):
    """One limit under two configurations; None where it does not exist."""

    name: str
    before: LimitReport | None
    after: LimitReport | None


class Comparison(msgspec.Struct, frozen=True):
    """Two reports over the same trace, limit by limit."""

    changes: tuple[Change, ...]

    def text(self) -> str:
        """Return the comparison as a table for people."""
        rows: list[tuple[str, ...]] = [("limit", "episodes", "first prune", "before the peak", "time pressed")]
        for change in self.changes:
            cells = zip(cells_of(change.before), cells_of(change.after), strict=True)
            rows.append((change.name, *(old if old == new else f"{old} -> {new}" for old, new in cells)))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(line.rstrip() for line in lines)


def compare(before: Report, after: Report) -> Comparison:
    """Return what changes from *before* to *after*: every limit that either has, in the order of *after*."""
    old, new = ({limit.name: limit for limit in report.limits} for report in (before, after))
    return Comparison(tuple(Change(name, old.get(name), new.get(name)) for name in {**new, **old}))


def cells_of(limit: LimitReport | None) -> tuple[str, str, str, str]:
    """Return for people: episodes, first prune, how long before the peak, time pressed; dashes for no limit."""
    if limit is None:
        return "-", "-", "-", "-"
    first, lead = limit.first_prune_seconds, limit.seconds_before_peak
    return (
        str(len(limit.episodes)),
        "never" if first is None else f"{first:.1f} s",
        "-" if lead is None else f"{lead:.1f} s",
        duration(limit.pressed_seconds),
    )


def _limit_text(limit: LimitReport) -> str:
    head = limit.name
    if limit.metric:
        head += f" ({limit.metric}, limit {amount(limit.limit, limit.unit)})"
    times = ", ".join(f"{name} {duration(seconds)}" for name, seconds in limit.seconds_at.items() if seconds)
    lines = [head, f"  {times or 'never observed'}"]
    if limit.peak_seconds is not None and limit.metric:
        lines.append(f"  peak {amount(limit.peak_value, limit.unit)} at {limit.peak_seconds:.1f} s{_lead_text(limit)}")
    lines += [f"  {_episode_text(episode, limit.unit)}" for episode in limit.episodes]
    return "\n".join(lines)


def _lead_text(limit: LimitReport) -> str:
    lead = limit.seconds_before_peak
    return ", not pressed then" if lead is None else f", pressed since {lead:.1f} s"


def _episode_text(episode: Episode, unit: str) -> str:
    end = "the end of the trace" if episode.end_seconds is None else f"{episode.end_seconds:.1f} s"
    text = f"{episode.begin_seconds:.1f} s to {end}: {episode.level} ({', '.join(episode.reasons)})"
    if not unit:
        return text
    text += f", at {amount(episode.value, unit)}, mean {amount(episode.mean, unit)}"
    if episode.seconds_to_limit is not None:
        text += f", {episode.seconds_to_limit:.1f} s to the end"
    return text
