"""Pressure as a thing with a beginning: one stretch of time in which a watched limit asks to prune.

Who frees half when told may fill it again before the stretch is over: what was relieved and is forecast anew is the
next episode, at once.
"""

from __future__ import annotations

import math

from shm_monitor.errors import SegmentError
from shm_monitor.light import TYPE_CHECKING, NamedTuple
from shm_monitor.schema import PRESSING, Level
from shm_monitor.segment.flags import level_of
from shm_monitor.worker.limits import limits_in

if TYPE_CHECKING:
    from shm_monitor.worker.attachment import Attachment
    from shm_monitor.worker.limits import LimitNumbers


class Episode(NamedTuple):
    """One stretch in which a limit is at PRUNE or above.

    Args:
        number: the same as long as it lasts, another for the next one, and never again on this host until it boots: the
            milliseconds of the monotonic clock at its beginning. Every process sees the same, and it grows.
        since: when it began, in unix seconds.
        limit: memory, cpu, network, ``gpu:3`` ...; of several that press now, the one that has for longest.
        reason: level, forecast, capacity or event: the first of those that hold now.
        level: ``prune`` or ``critical``, now.
    """

    number: int
    since: float
    limit: str
    reason: str
    level: str


def episode(attachment: Attachment) -> Episode | None:
    """Return the episode of the watched limits; None while calm, and while no live sampler says so (but for ``hold``).

    2 us while calm; as long as an explanation while pressed.
    """
    words = attachment.live_words()
    if words is not None and not any(level_of(word) >= Level.PRUNE for word in words):
        return None
    if words is None and attachment.on_stale != "hold":
        return None
    try:
        view = attachment.view()
        sample = view.sample()
    except SegmentError:
        return None
    pressed = [one for one in limits_in(sample, view, attachment.indices) if one.level >= Level.PRUNE]
    if not pressed:
        return None
    first = min(pressed, key=_since)
    since = _since(first)
    return Episode(
        number=round(since * 1e3),
        since=since + (sample.realtime_ns - sample.mono_ns) / 1e9,
        limit=first.limit.name,
        reason=_first_reason(first),
        level=first.level.text,
    )


def _since(limit: LimitNumbers) -> float:
    since = limit.numbers["pressed_since_seconds"]
    return since if math.isfinite(since) else 0.0


def _first_reason(limit: LimitNumbers) -> str:
    bits = limit.numbers["reasons"]
    holds = [one for bit, one in enumerate(PRESSING) if math.isfinite(bits) and int(bits) >> bit & 1]
    return min(holds, key=lambda one: limit.numbers[f"{one}_since_seconds"], default="")
