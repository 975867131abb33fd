"""A whole sampler in the process of the test, driven to a level and back: capacity 100, limit 90, target 81."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import shm_monitor as sm
from tests.support.fake_sampler import FakeSampler

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLES_MAX = 200
SETTINGS: dict[str, Any] = {
    "observation_period": 4.0,
    "target_utilization": 0.9,
    "stale_after": 3600.0,  # however long a busy machine takes between two samples of a test
}


class Driven:
    """A sampler and a reader of it.

    Attributes:
        reader: of its memory limit.
    """

    def __init__(self, name: str) -> None:
        self.sampler = FakeSampler(name, **SETTINGS)
        self.sampler.feed(*[50.0] * 6)
        self.reader = sm.attach(name, watch=["memory"])

    def press(self, usage: float = 90.5) -> None:
        """Stay at *usage* until it presses."""
        self._feed(usage, lambda: self.reader.level() >= sm.Level.PRUNE)

    def calm(self) -> None:
        """Stay at half until nothing presses any more."""
        self._feed(50.0, lambda: self.reader.level() is sm.Level.OK)

    def _feed(self, usage: float, is_done: Callable[[], bool]) -> None:
        for _ in range(SAMPLES_MAX):
            self.sampler.feed(usage)
            if is_done():
                return
        raise AssertionError(f"{SAMPLES_MAX} samples of {usage} did not do it")

    def close(self) -> None:
        self.reader.close()
        self.sampler.close()
