"""The readings of all sources, each written to its place among the values of a sample."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shm_monitor.collectors.base import UrgentCollector
from shm_monitor.collectors.sources import InlineSource, Source
from shm_monitor.schema import ordered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shm_monitor.collectors.base import Array

_log = logging.getLogger("shm_monitor.sampler")


class _Placed(NamedTuple):
    """A source, its own readings in the order of its metrics, and the place of each among the values."""

    source: Source
    readings: Array
    places: NDArray[np.intp]


class Readings:
    """Reads the sources in turn.

    Attributes:
        sources: in the order in which they are read.
        metrics: of all sources, in the order of the values: the rolled ones first.
        has_urgent: true where a source is read between two turns, too.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        """Give each metric of *sources* its place."""
        self.sources = tuple(sources)
        metrics = [metric for source in sources for metric in source.collector.metrics]
        order = ordered(metrics)
        self.metrics = tuple(metrics[index] for index in order)
        place_of = np.argsort(order)  # the inverse of a permutation
        ends = np.cumsum([len(source.collector.metrics) for source in sources])
        self._placed = [
            _Placed(source, np.empty(len(places)), places)
            for source, places in zip(sources, np.split(place_of, ends[:-1]), strict=True)
        ]
        self._urgent = [
            (source, readings, places)
            for source, readings, places in self._placed
            if isinstance(source, InlineSource) and isinstance(source.collector, UrgentCollector)
        ]
        self.has_urgent = bool(self._urgent)

    def read(self, values: Array) -> None:
        """Write the newest readings of every source into *values*, shape (len(metrics),)."""
        for source, readings, places in self._placed:
            source.read(readings)
            values[places] = readings

    def read_urgent(self, values: Array) -> None:
        """Write those readings into *values* that can run out between two turns; the others stay."""
        for source, readings, places in self._urgent:
            source.read_between(readings)
            values[places] = readings

    def close(self) -> None:
        """Close every source, whatever one of them raises."""
        for source in self.sources:
            try:
                source.close()
            except Exception:  # noqa: BLE001 - a driver's binding may raise anything; readers must hear of the stop
                _log.exception("collector %s does not close", source.collector.name)
