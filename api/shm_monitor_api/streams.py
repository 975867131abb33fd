"""The routes that answer with text: Prometheus' and the stream of events."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from shm_monitor_api import problems
from shm_monitor_api.events import EventsResponse, EventStream, sequence_of
from shm_monitor_api.negotiation import EVENT_FORMATS, chosen
from shm_monitor_api.readings import Readings


class StreamRoutes:
    """The endpoints for those who watch one sampler for long."""

    def __init__(self, readings: Readings, stream: EventStream) -> None:
        self._readings = readings
        self._stream = stream

    async def get_metrics(self, request: Request) -> Response:
        """Return the newest sample as Prometheus text, or as OpenMetrics where ``Accept`` names it."""
        from shm_monitor_api.exposition import exposition  # prometheus-client is 1 MB that few need

        body, media = exposition(self._readings.newest(), request.headers.get("accept", ""))
        return Response(body, headers={"content-type": media, "cache-control": "no-store", "vary": "Accept"})

    async def get_events(self, request: Request) -> Response:
        """Stream server-sent events: ``snapshot``, ``prune`` on change, ``stale``; ``id:`` is the sequence."""
        path = request.scope["path"]
        if chosen(request.headers.get("accept", ""), EVENT_FORMATS) is None:
            return problems.problem(406, "this is a stream of text/event-stream", instance=path)
        if not self._stream.take_seat():
            detail = f"{self._stream.clients} clients listen already, which is all that may"
            again = {"retry-after": problems.RETRY_SECONDS}
            return problems.problem(503, detail, instance=path, kind=problems.TOO_MANY_CLIENTS, headers=again)
        return EventsResponse(self._stream, sequence_of(request.headers.get("last-event-id")))
