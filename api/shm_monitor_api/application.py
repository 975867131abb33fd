"""Put the application together: one reader, the routes, the guard before them."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute

import shm_monitor as sm
from shm_monitor_api import bodies, openapi, problems
from shm_monitor_api.events import EventStream
from shm_monitor_api.guard import OPEN_PATH, Guard
from shm_monitor_api.negotiation import EVENT_FORMATS, METRICS_FORMATS
from shm_monitor_api.pages import add_pages
from shm_monitor_api.readings import Readings
from shm_monitor_api.routes import DataRoutes
from shm_monitor_api.settings import ApiConfig
from shm_monitor_api.stopping import while_serving
from shm_monitor_api.streams import StreamRoutes

if TYPE_CHECKING:
    import msgspec
    from fastapi.telemetry import TelemetryConfig

NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False}

Endpoint = Callable[..., Awaitable[Response]]


class DirectRoute(APIRoute):
    """A route whose endpoint takes the request and nothing else: FastAPI has no parameters to find for it.

    That search costs 30 us, more than the answer itself.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the endpoint as it is."""
        return self.endpoint


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
    readings = Readings(reader_of(config.name))
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
    data = DataRoutes(readings, config)
    _add_data(app, data)
    _add_streams(app, StreamRoutes(readings, stream))
    _add_health(app, data)
    add_pages(app)
    problems.add_handlers(app)
    app.add_middleware(Guard, config=config)
    return app


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


def _add_data(app: FastAPI, routes: DataRoutes) -> None:
    """Add what answers with a Struct in each format. Routes are tried in order: those asked most come first."""
    every: tuple[tuple[str, Endpoint, type[msgspec.Struct], tuple[int, ...]], ...] = (
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
    for path, endpoint, struct, errors in every:
        responses = openapi.data_responses(struct, *errors)
        _add(app, path, endpoint, responses, tag="data", parameters=[openapi.IF_NONE_MATCH])


def _add_streams(app: FastAPI, routes: StreamRoutes) -> None:
    metrics = openapi.text_responses("The series", METRICS_FORMATS, 503)
    _add(app, "/metrics", routes.get_metrics, metrics, tag="streams")
    events = openapi.text_responses("The events, without an end", EVENT_FORMATS, 406, 503)
    _add(app, "/events", routes.get_events, events, tag="streams", parameters=[openapi.LAST_EVENT_ID])


def _add_health(app: FastAPI, routes: DataRoutes) -> None:
    _add(app, OPEN_PATH, routes.get_healthz, openapi.json_responses(bodies.Alive), tag="health", security=[])
    _add(app, "/readyz", routes.get_readyz, openapi.json_responses(bodies.Ready, 503), tag="health")


def _add(
    app: FastAPI, path: str, endpoint: Endpoint, responses: openapi.Responses, *, tag: str, **operation: list[Any]
) -> None:
    """Add one route; *operation* is what else the document says of it."""
    parameters = inspect.signature(endpoint).parameters
    app.router.add_api_route(
        path,
        endpoint,
        tags=[tag],
        summary=openapi.summary(endpoint),
        response_class=Response,
        responses=responses,
        openapi_extra=operation,
        route_class_override=DirectRoute if list(parameters) == ["request"] else None,
    )
