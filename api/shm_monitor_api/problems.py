"""Every error as RFC 9457 says it: ``application/problem+json``, the framework's own 404 and 405 too."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import shm_monitor as sm

MEDIA_TYPE = "application/problem+json"
NO_SAMPLER = "urn:shm-monitor:no-sampler"
NOT_READY = "urn:shm-monitor:not-ready"
UNKNOWN_METRIC = "urn:shm-monitor:unknown-metric"
TOO_MANY_CLIENTS = "urn:shm-monitor:too-many-clients"
RETRY_SECONDS = "1"  # a reader looks for a new sampler at most once a second


class FieldError(msgspec.Struct, frozen=True):
    """One parameter that cannot be obeyed."""

    location: str
    message: str


class InvalidQueryError(Exception):
    """Some parameters cannot be obeyed."""

    def __init__(self, errors: tuple[FieldError, ...]) -> None:
        super().__init__("; ".join(f"{one.location}: {one.message}" for one in errors))
        self.errors = errors


class Problem(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What went wrong (RFC 9457).

    Args:
        type: a URI that names the kind of problem; ``about:blank`` where the status says it all.
        title: the kind, for people.
        status: of the response.
        detail: what was seen, what is allowed, and what to type next.
        instance: the path that was asked for.
        errors: each parameter that cannot be obeyed.
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str = ""
    errors: tuple[FieldError, ...] = ()


def problem(
    status: int,
    detail: str,
    *,
    instance: str = "",
    kind: str = "about:blank",
    errors: tuple[FieldError, ...] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the response that tells of one problem; never to be cached."""
    body = Problem(
        type=kind,
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=instance,
        errors=errors,
    )
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        headers={"cache-control": "no-store", **(headers or {})},
        media_type=MEDIA_TYPE,
    )


def no_sampler(error: sm.SegmentError, instance: str) -> Response:
    """Return the 503 for a segment that cannot be read: its message ends with the command to type."""
    return problem(503, str(error), instance=instance, kind=NO_SAMPLER, headers={"retry-after": RETRY_SECONDS})


def add_handlers(app: Starlette) -> None:
    """Make *app* answer every error with a problem."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(sm.SegmentError, _segment)
    app.add_exception_handler(InvalidQueryError, _query)
    app.add_exception_handler(Exception, _unexpected)


async def _http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    path = request.scope["path"]
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"allow": "GET" if path == "/events" else "GET, HEAD"}
        return problem(
            405, f"{request.method} is not allowed here: this API only reads", instance=path, headers=headers
        )
    if status == HTTPStatus.NOT_FOUND:
        return problem(404, "nothing is here; try: /docs", instance=path, headers=headers)
    detail = error.detail if isinstance(error, HTTPException) else ""
    return problem(status, detail, instance=path, headers=headers)


async def _segment(request: Request, error: Exception) -> Response:
    if not isinstance(error, sm.SegmentError):
        raise error
    return no_sampler(error, request.scope["path"])


async def _query(request: Request, error: Exception) -> Response:
    errors = error.errors if isinstance(error, InvalidQueryError) else ()
    return problem(422, str(error), instance=request.scope["path"], errors=errors)


async def _unexpected(request: Request, error: Exception) -> Response:  # noqa: ARG001 - the log has it, the client not
    return problem(500, "an error of this API, which its log describes", instance=request.scope["path"])
