"""The ring as columns: what was measured, newest last."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from shm_monitor.errors import UnknownMetricError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shm_monitor.segment.view import Sample, View


class History(msgspec.Struct, frozen=True):
    """Columns of the ring, oldest first; all have the same length.

    Args:
        sequences: the numbers of the samples; holes are samples that could not be read whole.
        times: when they were taken, in unix seconds.
        columns: readings by metric name; None for unknown.
    """

    sequences: list[int]
    times: list[float]
    columns: dict[str, list[float | None]]


def history(
    view: View,
    *,
    metrics: Sequence[str] | None = None,
    seconds: float | None = None,
    since: int = 0,
    step: int = 1,
    strict: bool = True,
) -> History:
    """Return the samples in the ring of *view*.

    Args:
        view: of the segment.
        metrics: names as in the schema; None for those with rolling statistics.
        seconds: only the newest so many.
        since: only those that follow this sequence number.
        step: every n-th sample, counted so that the newest is among them.
        strict: whether a name that the schema does not have is an error, or a column of None.

    Raises:
        UnknownMetricError: a name that the schema does not have, and *strict*.
        ValueError: *step* is not positive.
    """
    if step < 1:
        raise ValueError(f"step {step}, allowed is 1 or more")
    places = _places(view, metrics, strict=strict)
    samples = list(view.samples(after=since))
    if seconds is not None and samples:
        oldest_ns = samples[-1].mono_ns - seconds * 1e9
        samples = [sample for sample in samples if sample.mono_ns >= oldest_ns]
    chosen = samples[(len(samples) - 1) % step :: step]
    rows = [_values(sample, view) for sample in chosen]
    columns = {name: [_known(row, place) for row in rows] for name, place in places.items()}
    return History([sample.number for sample in chosen], [sample.realtime_ns * 1e-9 for sample in chosen], columns)


def _known(row: memoryview[float], place: int | None) -> float | None:
    return None if place is None or math.isnan(row[place]) else row[place]


def _places(view: View, metrics: Sequence[str] | None, *, strict: bool) -> dict[str, int | None]:
    schema = view.schema
    known = schema.places
    if metrics is None:
        return {metric.name: known[metric.name] for metric in schema.metrics[: schema.rolled_count]}
    unknown = [name for name in metrics if name not in known]
    if unknown and strict:
        raise UnknownMetricError(unknown[0], tuple(known))
    return {name: known.get(name) for name in metrics}


def _values(sample: Sample, view: View) -> memoryview[float]:
    slot = view.slot
    return memoryview(sample.data)[slot.values : slot.means].cast("d")
