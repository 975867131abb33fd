"""A collector that reads what a test writes into a file, or fails; a sampler finds it by ``module:factory``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shm_monitor.schema import Metric

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shm_monitor.collectors.base import Array

FILE_VARIABLE = "LOAD_COLLECTOR_FILE"


class FromFile:
    """The memory of a GPU called ``9``, percent; anything in the file but a number raises."""

    name = "from-file"
    threaded = False
    interval_seconds: float | None = None
    metrics: Sequence[Metric] = (
        Metric("gpu", "memory_percent", "percent", "a number", "a file", instance="9", rolled=True),
    )
    facts: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self._file = Path(os.environ[FILE_VARIABLE])

    def collect(self, out: Array) -> None:
        out[0] = float(self._file.read_text())

    def close(self) -> None:
        """Nothing is held open."""
