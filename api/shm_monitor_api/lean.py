"""The application that ``shm-monitor api`` serves: the same endpoints, without what few requests need."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shm_monitor_api import problems
from shm_monitor_api.guard import Guard
from shm_monitor_api.negotiation import JSON
from shm_monitor_api.service import Endpoint, Service

if TYPE_CHECKING:
    from shm_monitor_api.settings import ApiConfig


class LazyDocument:
    """The OpenAPI document, made by FastAPI when somebody asks for it first."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._document: bytes | None = None
        self._making = asyncio.Lock()

    async def get(self, request: Request) -> Response:  # noqa: ARG002 - as all endpoints
        """Return the document."""
        async with self._making:
            if self._document is None:
                # In a thread: the import takes a quarter of a second, in which others are answered.
                self._document = await asyncio.to_thread(self._made)
        return Response(self._document, media_type=JSON)

    def _made(self) -> bytes:
        from shm_monitor_api.application import described

        return msgspec.json.encode(described(self._service).openapi())


def create_lean_app(config: ApiConfig) -> Starlette:
    """Return the application that serves one sampler, which need not run yet.

    Raises:
        ConfigError: the name of the sampler is none.
    """
    service = Service(config)
    endpoints = {**service.endpoints, **service.pages, "/openapi.json": LazyDocument(service).get}
    app = Starlette(
        routes=[_route(path, endpoint) for path, endpoint in endpoints.items()],
        middleware=[Middleware(Guard, config=config, open_paths=service.open_paths)],
        lifespan=service.while_serving,
    )
    app.router.redirect_slashes = False
    problems.add_handlers(app)
    return app


def _route(path: str, endpoint: Endpoint) -> Route:
    route = Route(path, endpoint, methods=["GET"])
    route.methods = {"GET"}  # Starlette adds HEAD, which the guard has made a GET where it may be one
    return route
