"""Text for those who watch one sampler for long: Prometheus' and the stream of events."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from shm_monitor_api import problems
from shm_monitor_api.dependencies import CurrentService, Newest
from shm_monitor_api.events import EventsResponse, sequence_of
from shm_monitor_api.negotiation import EVENT_FORMATS, METRICS_FORMATS, chosen
from shm_monitor_api.openapi import LAST_EVENT_ID, DocumentedRoute, documented, text_responses

router = APIRouter(tags=["streams"], route_class=DocumentedRoute)


@router.get("/metrics", **documented(text_responses("The series", METRICS_FORMATS, 503)))
async def get_metrics(request: Request, reading: Newest) -> Response:
    """Return the newest sample as Prometheus text, or as OpenMetrics where ``Accept`` names it."""
    from shm_monitor_api.exposition import exposition  # prometheus-client is 1 MB that few need

    body, media = exposition(reading, request.headers.get("accept", ""))
    return Response(body, headers={"content-type": media, "cache-control": "no-store", "vary": "Accept"})


@router.get(
    "/events",
    **documented(text_responses("The events, without an end", EVENT_FORMATS, 406, 503), parameters=[LAST_EVENT_ID]),
)
async def get_events(request: Request, service: CurrentService) -> Response:
    """Stream server-sent events: ``snapshot``, ``prune`` on change, ``stale``; ``id:`` is the sequence."""
    path, stream = request.scope["path"], service.stream
    if chosen(request.headers.get("accept", ""), EVENT_FORMATS) is None:
        return problems.problem(406, "this is a stream of text/event-stream", instance=path)
    if not stream.take_seat():
        detail = f"{stream.clients} clients listen already, which is all that may"
        again = {"retry-after": problems.RETRY_SECONDS}
        return problems.problem(503, detail, instance=path, kind=problems.TOO_MANY_CLIENTS, headers=again)
    return EventsResponse(stream, sequence_of(request.headers.get("last-event-id")))
