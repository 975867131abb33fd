"""Put the application together: one reader, the routes, the guard before them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response

import shm_monitor as sm
from shm_monitor_api import bodies, openapi, problems
from shm_monitor_api.events import EventsResponse, EventStream, sequence_of
from shm_monitor_api.exposition import exposition
from shm_monitor_api.guard import OPEN_PATH, Guard
from shm_monitor_api.negotiation import EVENT_FORMATS, chosen
from shm_monitor_api.pages import add_pages
from shm_monitor_api.readings import Readings
from shm_monitor_api.routes import DataRoutes
from shm_monitor_api.settings import ApiConfig
from shm_monitor_api.stopping import while_serving

if TYPE_CHECKING:
    import msgspec
    from fastapi.telemetry import TelemetryConfig

NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False}


class MonitorApp(FastAPI):
    """FastAPI whose document has the schemas of the Structs."""

    needs_token = False

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, made once."""
        made = self.openapi_schema is None
        document = super().openapi()
        return openapi.completed(document, needs_token=self.needs_token) if made else document


def create_app(config: ApiConfig | None = None) -> FastAPI:
    """Return the application that serves one sampler, which need not run yet.

    Args:
        config: None for what the environment says.

    Raises:
        ConfigError: the name of the sampler, or the token, is none.
    """
    config = ApiConfig.from_environ() if config is None else config
    reader = sm.attach(config.name, timeout=0.0, required=False)
    readings = Readings(reader)
    stream = EventStream(readings, max_clients=config.max_event_clients)
    app = MonitorApp(
        title=openapi.TITLE,
        description=openapi.DESCRIPTION,
        version=sm.__version__,
        lifespan=lambda _: while_serving(stream),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
        generate_unique_id_function=lambda route: route.name,
    )
    app.needs_token = config.token is not None
    app.state.stream = stream
    _add_data(app, DataRoutes(readings, config))
    _add_streams(app, readings, stream)
    add_pages(app)
    problems.add_handlers(app)
    app.add_middleware(Guard, config=config)
    return app


def _add_data(app: FastAPI, routes: DataRoutes) -> None:
    """Add what answers with a Struct. Routes are tried in order: those that are asked most come first."""
    data: tuple[tuple[str, Callable[..., Any], type[msgspec.Struct], tuple[int, ...]], ...] = (
        ("/resources/all", routes.get_all, bodies.Resources, ()),
        ("/resources/prune", routes.get_prune, sm.Explanation, ()),
        ("/snapshot", routes.get_snapshot, sm.Snapshot, ()),
        ("/resources/cpu", routes.get_cpu, bodies.CpuResource, ()),
        ("/resources/memory", routes.get_memory, bodies.MemoryResource, ()),
        ("/resources/gpu", routes.get_gpu, bodies.GpuResource, ()),
        ("/resources/network", routes.get_network, bodies.NetworkResource, ()),
        ("/history", routes.get_history, sm.History, (404, 422)),
        ("/schema", routes.get_schema, bodies.SchemaTable, ()),
    )
    for path, endpoint, struct, errors in data:
        app.add_api_route(
            path,
            endpoint,
            response_class=Response,
            responses=openapi.data_responses(struct, *errors),
            openapi_extra={"parameters": [openapi.IF_NONE_MATCH]},
        )
    for path, endpoint, struct, errors, extra in (
        (OPEN_PATH, routes.get_healthz, bodies.Alive, (), {"security": []}),
        ("/readyz", routes.get_readyz, bodies.Ready, (503,), None),
    ):
        content = {"application/json": {"schema": openapi.reference(struct)}}
        found = {"description": openapi.first_line(struct), "content": content}
        app.add_api_route(
            path,
            endpoint,
            response_class=Response,
            responses={200: found, **openapi.error_responses(*errors)},
            openapi_extra=extra,
        )


def _add_streams(app: FastAPI, readings: Readings, stream: EventStream) -> None:
    async def get_metrics(request: Request) -> Response:
        """Return the newest sample as Prometheus text, or as OpenMetrics where ``Accept`` names it."""
        body, media = exposition(readings.newest(), request.headers.get("accept", ""))
        return Response(body, headers={"content-type": media, "cache-control": "no-store", "vary": "Accept"})

    async def get_events(request: Request) -> Response:
        """Stream server-sent events: ``snapshot``, ``prune`` on change, ``stale``; ``id:`` is the sequence."""
        path = request.url.path
        if chosen(request.headers.get("accept", ""), EVENT_FORMATS) is None:
            return problems.problem(406, "this is a stream of text/event-stream", instance=path)
        if not stream.take_seat():
            detail = f"{stream.clients} clients listen already, which is all that may"
            again = {"retry-after": problems.RETRY_SECONDS}
            return problems.problem(503, detail, instance=path, kind=problems.TOO_MANY_CLIENTS, headers=again)
        return EventsResponse(stream, sequence_of(request.headers.get("last-event-id")))

    text = {"schema": {"type": "string"}}
    for path, endpoint, media, errors, parameters in (
        ("/metrics", get_metrics, ("text/plain", "application/openmetrics-text"), (503,), ()),
        ("/events", get_events, EVENT_FORMATS, (406, 503), (openapi.LAST_EVENT_ID,)),
    ):
        content = dict.fromkeys(media, text)
        found = {"description": (endpoint.__doc__ or "").partition(":")[0], "content": content}
        app.add_api_route(
            path,
            endpoint,
            response_class=Response,
            responses={200: found, **openapi.error_responses(*errors)},
            openapi_extra={"parameters": list(parameters)} if parameters else None,
        )
