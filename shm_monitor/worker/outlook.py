"""What the newest sample promises a worker: how many bytes are left, how fast they go, and whether anybody measures."""

from __future__ import annotations

import math

from shm_monitor.errors import SegmentError
from shm_monitor.light import TYPE_CHECKING, NamedTuple
from shm_monitor.segment.clocks import samplers_now_ns
from shm_monitor.segment.layout import INTERVAL_OFFSET
from shm_monitor.segment.status import beat_age_ns
from shm_monitor.worker.limits import is_main_memory, limits_in
from shm_monitor.worker.own_limits import own_limits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shm_monitor.worker.attachment import Attachment
    from shm_monitor.worker.limits import LimitNumbers


class Outlook(NamedTuple):
    """What the watched limits leave.

    Args:
        has_sample: false where no sampler has ever been: there is nothing to go by.
        is_live: true while a live sampler stands behind the numbers.
        number: of the sample.
        age_seconds: of the sample.
        left_bytes: of the limit in bytes (main memory, GPU memory) that leaves the least; NaN where there is none.
        seconds_to_end: until those are used up at the rate of now; infinite while they are not.
        below_limit_bytes: until the nearest limit in bytes, less than 0 over it; NaN where there is none.
        below_target_bytes: the same until its target.
        shed_fraction: 0 at the target, 1 at the capacity, of the worst limit of any unit.
        interval_seconds: between two samples.
    """

    has_sample: bool
    is_live: bool = False
    number: int = 0
    age_seconds: float = math.inf
    left_bytes: float = math.nan
    seconds_to_end: float = math.inf
    below_limit_bytes: float = math.nan
    below_target_bytes: float = math.nan
    shed_fraction: float = 0.0
    interval_seconds: float = 1.0


class _InBytes(NamedTuple):
    """One limit whose metric is memory of some kind, counted in bytes."""

    left: float
    below_limit: float
    below_target: float
    seconds: float


def outlook(attachment: Attachment) -> Outlook:
    """Return what the watched limits of *attachment* leave. Raises nothing for what a sampler does.

    25 us for a schema of five metrics, 100 us for one of 64: for once per sample, not for a hot loop.
    """
    try:
        view, live = attachment.look()
        sample = view.sample()
    except SegmentError:
        return Outlook(has_sample=False)
    limits = limits_in(sample, view, attachment.indices)
    memories = list(_in_bytes(limits))
    least = min(memories, default=_InBytes(math.nan, math.nan, math.nan, math.inf))
    own = [one.left_bytes for one in own_limits()] if any(map(is_main_memory, limits)) else []
    return Outlook(
        has_sample=True,
        is_live=live,
        number=sample.number,
        age_seconds=max(samplers_now_ns(view, alive=live) - sample.mono_ns, 0) / 1e9,
        left_bytes=min([least.left, *own]),
        seconds_to_end=max(least.seconds - beat_age_ns(view) / 1e9, 0.0),
        below_limit_bytes=min((one.below_limit for one in memories), default=math.nan),
        below_target_bytes=min((one.below_target for one in memories), default=math.nan),
        shed_fraction=max((one.shed_fraction for one in limits), default=0.0),
        interval_seconds=view.word(INTERVAL_OFFSET) / 1e9,
    )


def _in_bytes(limits: Iterable[LimitNumbers]) -> Iterable[_InBytes]:
    """Yield those of *limits* that count memory and whose numbers are known."""
    for one in limits:
        scale = one.bytes_per_unit
        left = one.headroom * scale
        if math.isfinite(left):
            seconds = one.numbers["seconds_to_limit"]
            below_limit, below_target = ((one.numbers[key] - one.value) * scale for key in ("limit", "target"))
            yield _InBytes(
                left=left,
                below_limit=left if math.isnan(below_limit) else below_limit,
                below_target=left if math.isnan(below_target) else below_target,
                seconds=math.inf if math.isnan(seconds) else seconds,
            )
