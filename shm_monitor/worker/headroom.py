"""How much is left, and how much to shed: over the watched limits, the one that is closest to its end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from shm_monitor.worker.limits import limits_in

if TYPE_CHECKING:
    from shm_monitor.segment.view import Sample, View


class Headroom(NamedTuple):
    """What is left of one limit.

    Args:
        limit: the one with the smallest ratio; empty where no limit is known.
        ratio: 0 (nothing left) to 1; None where unknown.
        amount: the same in the unit of its metric (bytes, percent); None where unknown.
        unit: of the amount.
    """

    limit: str
    ratio: float | None
    amount: float | None
    unit: str


def headroom(sample: Sample, view: View, indices: tuple[int, ...]) -> Headroom:
    """Return what is left in *sample* of the limits whose flags are *indices*, the smallest ratio of them."""
    known = [one for one in limits_in(sample, view, indices) if not math.isnan(one.headroom_ratio)]
    if not known:
        return Headroom("", None, None, "")
    least = min(known, key=lambda one: one.headroom_ratio)
    return Headroom(least.limit.name, least.headroom_ratio, least.headroom, least.limit.unit)
