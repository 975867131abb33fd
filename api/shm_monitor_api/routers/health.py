"""Whether this process answers, and whether a live sampler stands behind it."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from shm_monitor_api import bodies, problems
from shm_monitor_api.answers import small
from shm_monitor_api.dependencies import CurrentService
from shm_monitor_api.guard import OPEN_PATH
from shm_monitor_api.openapi import DocumentedRoute, documented, json_responses

router = APIRouter(tags=["health"], route_class=DocumentedRoute)


@router.get(OPEN_PATH, **documented(json_responses(bodies.Alive), security=[]))
async def get_healthz() -> Response:
    """Say that this process answers."""
    return small(bodies.Alive())


@router.get("/readyz", **documented(json_responses(bodies.Ready, 503)))
async def get_readyz(request: Request, service: CurrentService) -> Response:
    """Say whether a live sampler stands behind the answers; 503 when none does."""
    status = service.reader.status()
    if status.state == "live" and status.sequence is not None and status.age_seconds is not None:
        return small(bodies.Ready(status.sequence, status.age_seconds))
    detail = status.detail or (
        f"the sampler {status.name!r} is {status.state}; try: shm-monitor status --name {status.name}"
    )
    return problems.problem(
        503,
        detail,
        instance=request.scope["path"],
        kind=problems.NOT_READY,
        headers={"retry-after": problems.RETRY_SECONDS},
    )
