"""What is served, whichever framework routes to it: one reader, its endpoints, the guard before them.

FastAPI makes the application that other servers run, and the OpenAPI document. The server of this package routes by
Starlette alone, which FastAPI builds on: FastAPI and pydantic are 15 MB of private memory, and they are needed when
somebody asks for the document.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

import shm_monitor as sm
from shm_monitor_api.events import EventStream
from shm_monitor_api.guard import OPEN_PATH
from shm_monitor_api.pages import dashboard, documentation
from shm_monitor_api.readings import Readings
from shm_monitor_api.replaying import Replayer, ReplayRoute
from shm_monitor_api.routes import DataRoutes
from shm_monitor_api.stopping import while_serving
from shm_monitor_api.streams import StreamRoutes

if TYPE_CHECKING:
    from shm_monitor_api.settings import ApiConfig

Endpoint = Callable[[Request], Awaitable[Response]]


class Service:
    """One sampler, which need not run yet, and everything that can be asked about it.

    Attributes:
        config: how it is served.
        stream: the events.
        replayer: answers what other settings would have decided.
        endpoints: of each path that has data; routes are tried in order, and those asked most come first.
        pages: of each path that a person looks at.
        open_paths: those that need no token, for there is nothing of the sampler in them.
    """

    def __init__(self, config: ApiConfig) -> None:
        self.config = config
        readings = Readings(reader_of(config.name))
        self.stream = EventStream(readings, max_clients=config.max_event_clients)
        self.replayer = Replayer()
        data, streams = DataRoutes(readings, config), StreamRoutes(readings, self.stream)
        self.endpoints: dict[str, Endpoint] = {
            "/resources/all": data.get_all,
            "/resources/prune": data.get_prune,
            "/snapshot": data.get_snapshot,
            "/metrics": streams.get_metrics,
            OPEN_PATH: data.get_healthz,
            "/readyz": data.get_readyz,
            "/resources/cpu": data.get_cpu,
            "/resources/memory": data.get_memory,
            "/resources/gpu": data.get_gpu,
            "/resources/network": data.get_network,
            "/history": data.get_history,
            "/events": streams.get_events,
            "/workers": data.get_workers,
            "/episodes": data.get_episodes,
            "/schema": data.get_schema,
            "/replay": ReplayRoute(readings, self.replayer).get_replay,
        }
        shown = dashboard()
        self.pages = {**shown, **documentation()}
        self.open_paths = frozenset({OPEN_PATH, *shown})

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
        return sm.attach(name, timeout=0.0)
    except sm.SegmentError:
        reader = sm.attach(name, timeout=0.0, required=False)
        reader.required = True
        return reader
