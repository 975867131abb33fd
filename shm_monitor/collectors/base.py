"""What a collector is: one source, read when asked, with every reading guarded alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from shm_monitor.process_names import ProcessName
from shm_monitor.schema import Metric

Array = NDArray[np.float64]


class Collector(Protocol):
    """One source of readings. It knows nothing of memory layout or schedule.

    Attributes:
        name: unique among the collectors; errors are counted under it.
        threaded: true where a call can block (a driver, a file system, a walk over processes):
            the sampler then gives it a thread of its own, so that a hang costs its own readings only.
        interval_seconds: its own cadence, or None for every sample. Only threaded collectors have one.
        metrics: what it writes, fixed for its life.
        facts: what does not change while it lives (device names, scopes); JSON types only.
    """

    name: str
    threaded: bool
    interval_seconds: float | None
    metrics: Sequence[Metric]
    facts: Mapping[str, Any]

    def collect(self, out: Array) -> None:
        """Write the readings into *out*, shape (len(metrics),); a missing one is ``schema.unknown(why)``.

        An exception means that nothing in *out* counts: the sampler writes unknown(ERROR) and counts it.
        """
        ...

    def close(self) -> None:
        """Give back what the collector holds open."""
        ...


@runtime_checkable
class UrgentCollector(Protocol):
    """A collector whose readings can run out between two turns: memory."""

    def collect_between(self, out: Array) -> None:
        """Write into *out*, which has the readings of before, those that change from one moment to the next."""
        ...


@runtime_checkable
class NamingCollector(Protocol):
    """A collector with a table of processes.

    Attributes:
        processes: what those of its newest readings are called, by pid; replaced, never changed.
    """

    processes: Mapping[int, ProcessName]
