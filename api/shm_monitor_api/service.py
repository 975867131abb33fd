"""What one application serves: a reader, and what is made of it for all requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import shm_monitor as sm
from shm_monitor_api.events import EventStream
from shm_monitor_api.readings import LargeAnswers, Readings
from shm_monitor_api.replaying import Replayer
from shm_monitor_api.stopping import while_serving

if TYPE_CHECKING:
    from shm_monitor_api.settings import ApiConfig


class Service:
    """One sampler, which need not run yet.

    Attributes:
        config: how it is served.
        reader: of the sampler.
        readings: its newest sample, read once for all.
        stream: the events.
        replayer: answers what other settings would have decided.
        large: answers that would hold up the event loop.
    """

    def __init__(self, config: ApiConfig) -> None:
        self.config = config
        self.reader = reader_of(config.name)
        self.readings = Readings(self.reader)
        self.stream = EventStream(self.readings, max_clients=config.max_event_clients)
        self.replayer = Replayer()
        self.large = LargeAnswers()

    @asynccontextmanager
    async def while_serving(self, _: object) -> AsyncIterator[None]:
        """Have the stream open, and keep what replays for a while after each use."""
        self.replayer.lingers = True
        try:
            async with while_serving(self.stream):
                yield
        finally:
            self.replayer.close()


def reader_of(name: str | None) -> sm.Reader:
    """Return a reader of the sampler *name*, which may come late: until then each route says that there is none.

    Raises:
        ConfigError: no sampler can have that name.
    """
    try:
        return sm.attach(name, timeout=0.0, scope="any")
    except sm.SegmentError:
        reader = sm.attach(name, timeout=0.0, required=False, scope="any")
        reader.required = True
        return reader
