"""What routes ask for, by ``Depends``: the one service of their application, and its newest sample."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from shm_monitor_api.queries import HistoryQuery, episodes_query, history_query, replay_query
from shm_monitor_api.readings import Reading
from shm_monitor_api.service import Service

# All of them async: what takes microseconds is not worth the hop to a thread, which FastAPI gives a plain function.


async def current_service(request: Request) -> Service:
    """Return what the application serves."""
    service: Service = request.app.state.service
    return service


CurrentService = Annotated[Service, Depends(current_service)]


async def newest(request: Request) -> Reading:
    """Return the newest sample.

    Raises:
        SegmentError: there is none, which is a 503.
    """
    service: Service = request.app.state.service
    return service.readings.newest()


async def asked_history(request: Request) -> HistoryQuery:
    """Return what part of the ring is asked for; what cannot be obeyed is a 422."""
    return history_query(request.scope["query_string"])


async def asked_since(request: Request) -> float:
    """Return the time after which episodes are asked for; what cannot be obeyed is a 422."""
    return episodes_query(request.scope["query_string"]).since


async def asked_settings(request: Request) -> dict[str, float]:
    """Return the settings that a replay is to try; what cannot be obeyed is a 422."""
    return replay_query(request.scope["query_string"])


Newest = Annotated[Reading, Depends(newest)]
AskedHistory = Annotated[HistoryQuery, Depends(asked_history)]
AskedSince = Annotated[float, Depends(asked_since)]
AskedSettings = Annotated[dict[str, float], Depends(asked_settings)]
