"""A sampler of shm_monitor.testing with the settings of a real one: memory in units of one byte, capacity 100."""

from __future__ import annotations

import gc
from typing import Any

from shm_monitor import testing
from shm_monitor.config.resource import ResourceConfig

_DEFAULTS = ResourceConfig()


class FakeSampler(testing.FakeSampler):
    """``feed`` takes samples, one second apart by its own clock."""

    is_loaded = False

    def __init__(self, name: str, *, gpus: int = 0, **settings: Any) -> None:
        self._load(f"{name}-first")
        given = {"observation_period": _DEFAULTS.observation_period, "stale_after": _DEFAULTS.stale_after, **settings}
        super().__init__(name, capacity_bytes=100.0, gpus=gpus, **given)

    @classmethod
    def _load(cls, name: str) -> None:
        """Load the kernels: on a busy machine the first sample takes longer than a sampler may be silent."""
        if not cls.is_loaded:
            cls.is_loaded = True
            first = cls(name)
            first.feed(50.0)
            gc.collect()  # what compiling leaves in circles may hold a view of the segment
            first.close()
