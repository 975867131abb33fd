"""The application: routers by subject behind a list of middleware, for one sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI

import shm_monitor as sm
from shm_monitor_api import openapi, problems
from shm_monitor_api.guard import OPEN_PATH, middleware
from shm_monitor_api.pages import Pages, dashboard, documentation
from shm_monitor_api.routers import health, past, resources, streams
from shm_monitor_api.service import Service
from shm_monitor_api.settings import ApiConfig

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

ROUTERS = (resources.router, health.router, past.router, streams.router)  # tried in order: those asked most come first
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
    service = Service(ApiConfig.from_environ() if config is None else config)
    shown = dashboard()
    app = MonitorApp(
        title=openapi.TITLE,
        description=openapi.DESCRIPTION,
        version=sm.__version__,
        lifespan=service.while_serving,
        middleware=middleware(service.config, frozenset({OPEN_PATH, *shown})),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
        generate_unique_id_function=lambda route: route.name,
    )
    app.needs_token = service.config.token is not None
    app.state.service = service
    problems.add_handlers(app)
    for router in (*ROUTERS, pages_router({**shown, **documentation()})):
        app.include_router(router)
    return app


def pages_router(pages: Pages) -> APIRouter:
    """Return the router of what a person looks at; it is not in the document."""
    router = APIRouter(include_in_schema=False)
    for path, get in pages.items():
        router.add_api_route(path, get)
    return router
