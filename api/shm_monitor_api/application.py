"""The application by FastAPI: what other servers run, and where the OpenAPI document comes from."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

import shm_monitor as sm
from shm_monitor.traces.what_if import WhatIf
from shm_monitor_api import bodies, openapi, problems
from shm_monitor_api.guard import OPEN_PATH, Guard
from shm_monitor_api.negotiation import EVENT_FORMATS, METRICS_FORMATS
from shm_monitor_api.queries import EPISODES, HISTORY, REPLAY, parameters
from shm_monitor_api.service import Service
from shm_monitor_api.settings import ApiConfig

if TYPE_CHECKING:
    import msgspec
    from fastapi.telemetry import TelemetryConfig

NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False}


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
    return described(Service(ApiConfig.from_environ() if config is None else config))


def described(service: Service) -> FastAPI:
    """Return the application of *service*, with its OpenAPI document."""
    app = MonitorApp(
        title=openapi.TITLE,
        description=openapi.DESCRIPTION,
        version=sm.__version__,
        lifespan=service.while_serving,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
        generate_unique_id_function=lambda route: route.name,
    )
    app.needs_token = service.config.token is not None
    app.state.stream = service.stream
    operations = _operations()
    for path, endpoint in service.endpoints.items():
        app.router.add_api_route(
            path,
            endpoint,
            summary=openapi.summary(endpoint),
            response_class=Response,
            route_class_override=DirectRoute,
            **operations[path],
        )
    for path, endpoint in service.pages.items():
        app.router.add_api_route(path, endpoint, include_in_schema=False, route_class_override=DirectRoute)
    problems.add_handlers(app)
    app.add_middleware(Guard, config=service.config, open_paths=service.open_paths)
    return app


def _operations() -> dict[str, dict[str, Any]]:
    """Return what the document says of each path."""
    data = {
        "/resources/all": _data(bodies.Resources),
        "/resources/prune": _data(sm.Explanation),
        "/snapshot": _data(sm.Snapshot),
        "/resources/cpu": _data(bodies.CpuResource),
        "/resources/memory": _data(bodies.MemoryResource),
        "/resources/gpu": _data(bodies.GpuResource),
        "/resources/network": _data(bodies.NetworkResource),
        "/history": _data(sm.History, 404, 422, parameters=parameters(HISTORY)),
        "/workers": _data(bodies.PresentWorkers),
        "/episodes": _data(bodies.EpisodeEvents, 422, parameters=parameters(EPISODES)),
        "/schema": _data(bodies.SchemaTable),
        "/replay": _data(WhatIf, 422, parameters=parameters(REPLAY)),
    }
    metrics = openapi.text_responses("The series", METRICS_FORMATS, 503)
    events = openapi.text_responses("The events, without an end", EVENT_FORMATS, 406, 503)
    return data | {
        "/metrics": _operation("streams", metrics),
        "/events": _operation("streams", events, parameters=[openapi.LAST_EVENT_ID]),
        OPEN_PATH: _operation("health", openapi.json_responses(bodies.Alive), security=[]),
        "/readyz": _operation("health", openapi.json_responses(bodies.Ready, 503)),
    }


def _data(struct: type[msgspec.Struct], *errors: int, parameters: Sequence[openapi.Document] = ()) -> dict[str, Any]:
    """Return the operation of a path that answers with *struct* in each format."""
    responses = openapi.data_responses(struct, *errors)
    return _operation("data", responses, parameters=[*parameters, openapi.IF_NONE_MATCH])


def _operation(tag: str, responses: openapi.Responses, **extra: list[Any]) -> dict[str, Any]:
    return {"tags": [tag], "responses": responses, "openapi_extra": extra}
