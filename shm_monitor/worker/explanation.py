"""Why a worker is asked to shed: the numbers as they were when each reason was set, not as they are now."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import msgspec

from shm_monitor.schema import PRESSING, Level, Reason, why_unknown
from shm_monitor.units import amount, printable
from shm_monitor.worker.limits import LimitNumbers, limits_in

if TYPE_CHECKING:
    from shm_monitor.segment.view import Sample, View
    from shm_monitor.worker.presence import Request


class ReasonState(msgspec.Struct, frozen=True, gc=False):
    """One reason of one limit that holds now.

    Args:
        limit: ``memory:0``, cpu, network, ``gpu:3`` ...
        reason: level, forecast, capacity or event.
        level: what it asks: prune or critical.
        unit: of the numbers.
        scope: whose limit it is, where the metric has one (host, or a cgroup path).
        since: when it was set, in unix seconds.
        value: the reading when it was set; so are the mean (time-weighted), the limit, the capacity, and the seconds to
            the capacity.
        swap_available_bytes: how much swap is left to it, now; None where there is none, or it is no memory.
    """

    limit: str
    reason: str
    level: str
    unit: str
    scope: str
    since: float
    value: float | None
    mean: float | None
    limit_value: float | None
    capacity: float | None
    seconds_to_limit: float | None
    swap_available_bytes: float | None = None

    @property
    def subject(self) -> str:
        """What it is about, in words: ``memory of the parent cgroup /job17``, ``cpu``."""
        return _subject(self.limit, self.scope)

    def __str__(self) -> str:
        """Return one line for people."""
        at = amount(self.value, self.unit)
        if self.capacity is not None and self.unit == "bytes":
            at = _of(at, amount(self.capacity, self.unit))
        parts = [f"{self.subject}: {at}", f"{self.reason} ({self.level})"]
        parts += [
            f"{name} {amount(number, self.unit)}"
            for name, number in (("mean", self.mean), ("limit", self.limit_value))
            if number is not None
        ]
        if self.seconds_to_limit is not None:
            parts.append(f"{self.seconds_to_limit:.1f} s to the end")
        if self.swap_available_bytes is not None:
            parts.append(f"{amount(self.swap_available_bytes, 'bytes')} of swap left")
        parts.append(f"since {time.strftime('%H:%M:%S', time.localtime(self.since))}")
        return printable(", ".join(parts))


class UnknownLimit(msgspec.Struct, frozen=True, gc=False):
    """One limit that presses nothing because nobody knows how it stands: its collector fails, its cgroup is gone.

    Args:
        limit: ``memory:0``, cpu, network, ``gpu:3`` ...
        scope: whose limit it was, where that is known (host, or a cgroup path).
        why: not_supported, error, timeout, gpu_lost ..., as ``unavailable`` of the snapshot has it.
    """

    limit: str
    scope: str
    why: str

    def __str__(self) -> str:
        """Return one line for people."""
        return printable(f"{_subject(self.limit, self.scope)}: unknown ({self.why.replace('_', ' ')}), presses nothing")


def _subject(limit: str, scope: str) -> str:
    name, _, level = limit.partition(":")
    if name != "memory" or not scope:
        return limit
    if scope == "host":
        return "memory of the host"
    whose = {"0": "our cgroup", "1": "the parent cgroup"}.get(level, "the cgroup")
    return f"memory of {whose} {scope}"


def _of(part: str, whole: str) -> str:
    """Return *part* of *whole*, with their unit once where it is the same: ``15.2 of 16.0 GB``."""
    number, _, unit = part.partition(" ")
    return f"{number if whole.endswith(f' {unit}') else part} of {whole}"


class Explanation(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The verdict on the watched limits, and every reason that holds.

    Args:
        should_prune: what ``Reader.should_prune`` answers, less ``on_stale``.
        level: ok, warn, prune or critical.
        timestamp: of the sample, in unix seconds; NaN where there is none.
        stale: true when no live sampler stands behind it.
        reasons: the most pressing first; empty below prune.
        request: of a worker that is present, what it is asked for, in words; empty for nothing.
        no_sampler: why there is no sample at all, where a reader does not require one; else empty.
        unknown: the watched limits that nobody knows of how they stand.
        injected: the metrics whose readings were false on purpose (``shm-monitor inject``) within the observation
            period, so that the verdict may rest on them.
    """

    should_prune: bool
    level: str
    timestamp: float
    stale: bool
    reasons: tuple[ReasonState, ...]
    request: str = ""
    no_sampler: str = ""
    unknown: tuple[UnknownLimit, ...] = msgspec.field(default_factory=lambda: ())  # told when empty, too
    injected: tuple[str, ...] = msgspec.field(default_factory=lambda: ())  # likewise

    def of_worker(self, request: Request | None, level: Level) -> Explanation:
        """Return the same for a worker that is present: its own level, and what it is asked for."""
        words = "" if request is None else str(request)
        return msgspec.structs.replace(self, should_prune=level >= Level.PRUNE, level=level.name.lower(), request=words)

    def __str__(self) -> str:
        """Return it as text: the level, then a line per reason, and per limit that is unknown."""
        if self.no_sampler:
            return f"NO SAMPLER: {self.no_sampler}"
        marks = ["STALE"] * self.stale + [f"INJECTED: {printable(', '.join(self.injected))}"] * bool(self.injected)
        head = self.level.upper() + (f" ({'; '.join(marks)})" if marks else "")
        return "\n  ".join([head, *([self.request] if self.request else []), *map(str, (*self.reasons, *self.unknown))])


_LEVEL_OF_REASON = {"level": Level.PRUNE, "forecast": Level.PRUNE, "capacity": Level.CRITICAL, "event": Level.PRUNE}


def explain(
    sample: Sample, view: View, indices: tuple[int, ...], *, stale: bool, injected: tuple[str, ...] = ()
) -> Explanation:
    """Return why the limits whose flags are *indices* stand where they do in *sample*, some readings *injected*."""
    limits = limits_in(sample, view, indices)
    level = max((limit.level for limit in limits), default=Level.OK)
    offset = sample.realtime_ns * 1e-9 - sample.mono_ns * 1e-9
    reasons = [one for limit in limits if limit.numbers["reasons"] for one in _reasons(limit, offset)]
    reasons.sort(key=lambda one: (-Level[one.level.upper()], one.since))
    return Explanation(
        should_prune=level >= Level.PRUNE,
        level=level.text,
        timestamp=sample.realtime_ns * 1e-9,
        stale=stale,
        reasons=tuple(reasons),
        injected=injected,
        unknown=tuple(
            _unknown(limit) for limit in limits if int(_known(limit.numbers["reasons"]) or 0) & Reason.UNKNOWN
        ),
    )


def _unknown(limit: LimitNumbers) -> UnknownLimit:
    return UnknownLimit(limit.limit.name, limit.scope, why_unknown(limit.value).text)


def _reasons(limit: LimitNumbers, offset: float) -> list[ReasonState]:
    """Return the reasons of *limit* that hold; *offset* turns monotonic seconds into unix seconds."""
    bits = int(_known(limit.numbers["reasons"]) or 0)
    found = []
    for bit, reason in enumerate(PRESSING):
        if bits >> bit & 1:
            at = {key: _known(limit.numbers[f"{reason}_{key}"]) for key in _AS_SET}
            # An OOM kill is an event, and critical: the level of the limit says so.
            level = max(_LEVEL_OF_REASON[reason], limit.level if reason == "event" else Level.OK)
            found.append(
                ReasonState(
                    limit=limit.limit.name,
                    reason=reason,
                    level=level.text,
                    unit=limit.limit.unit,
                    scope=limit.scope,
                    since=limit.numbers[f"{reason}_since_seconds"] + offset,
                    value=at["value"],
                    mean=at["mean"],
                    limit_value=at["limit"],
                    capacity=at["capacity"],
                    seconds_to_limit=at["seconds_to_limit"],
                    swap_available_bytes=_known(limit.swap_available_bytes),
                )
            )
    return found


_AS_SET = ("value", "mean", "limit", "capacity", "seconds_to_limit")


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None
