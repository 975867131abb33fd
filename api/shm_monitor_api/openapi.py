"""The OpenAPI document: schemas from the Structs, both media types, every error that can come."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from fastapi.routing import APIRoute
from starlette.responses import Response

import shm_monitor as sm
from shm_monitor.traces.what_if import WhatIf
from shm_monitor_api import bodies, problems
from shm_monitor_api.negotiation import DATA_FORMATS, JSON
from shm_monitor_api.problems import Problem

TITLE = "shm-monitor"
DESCRIPTION = """\
What one sampler measures, and whether work should be shed now. Every path only reads; `null` is unknown, never zero;
times are unix seconds, percent is 0-100. Data routes answer JSON, or MessagePack for `Accept: application/msgpack`."""

Document = dict[str, Any]
Responses = dict[int | str, Document]

STRUCTS: tuple[type[msgspec.Struct], ...] = (
    bodies.Resources,
    bodies.CpuResource,
    bodies.MemoryResource,
    bodies.GpuResource,
    bodies.NetworkResource,
    bodies.PresentWorkers,
    bodies.EpisodeEvents,
    bodies.SchemaTable,
    WhatIf,
    bodies.Liveness,
    bodies.Alive,
    bodies.Ready,
    sm.Explanation,
    sm.History,
    sm.Snapshot,
    Problem,
)
_TEMPLATE = "#/components/schemas/{name}"
_COMMON = (400, 401, 403, 413, 421, 431)  # what the guard or the server may say to any request
_TEXTS = {
    400: "Not a request of HTTP/1.1, or a head of more than 16 KB",
    401: "No token, or a wrong one",
    403: "A page of another origin, or more than may be asked at once",
    404: "No such metric",
    406: "No format of ours is among those",
    413: "A body, which no route takes",
    421: "The Host header names another machine",
    422: "A parameter that cannot be obeyed",
    431: "Headers too large",
    503: "No sampler to ask",
}
_HEADERS = {
    "ETag": {"description": '`W/"epoch-sequence"` of the sample', "schema": {"type": "string"}},
    "Cache-Control": {"schema": {"type": "string"}},
    "Shm-Monitor-Name": {"description": "the name of the sampler", "schema": {"type": "string"}},
    "Shm-Monitor-Stale": {
        "description": "`true` where no live sampler stands behind the sample; else absent",
        "schema": {"type": "string"},
    },
}
_ERROR_HEADERS: dict[int, Document] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    503: {"Retry-After": {"description": "in seconds", "schema": {"type": "integer"}}},
}
_STRING_HEADER = {"in": "header", "required": False, "schema": {"type": "string"}}
IF_NONE_MATCH = {"name": "If-None-Match", "description": "the ETag of the sample that you have", **_STRING_HEADER}
LAST_EVENT_ID = {"name": "Last-Event-ID", "description": "the `id:` of the last event that you had", **_STRING_HEADER}


class DocumentedRoute(APIRoute):
    """A route whose heading in the document is the first clause of its docstring."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        options["summary"] = options.get("summary") or summary(endpoint)
        super().__init__(path, endpoint, **options)


def data(struct: type[msgspec.Struct], *errors: int, parameters: Sequence[Document] = ()) -> Document:
    """Return what a route declares that answers with *struct* in each format."""
    return documented(data_responses(struct, *errors), parameters=[*parameters, IF_NONE_MATCH])


def documented(responses: Responses, **extra: list[Any]) -> Document:
    """Return what a route declares: its *responses*, and *extra* entries of its operation."""
    return {"responses": responses, "response_class": Response, "openapi_extra": extra}


def data_responses(struct: type[msgspec.Struct], *errors: int) -> Responses:
    """Return what a data route may answer: *struct* in each format, 304, the common errors and *errors*."""
    content = {media: {"schema": reference(struct)} for media in DATA_FORMATS}
    return {
        200: {"description": first_line(struct), "content": content, "headers": _HEADERS},
        304: {"description": "You have this sample already"},
        **error_responses(406, 503, *errors),
    }


def json_responses(struct: type[msgspec.Struct], *errors: int) -> Responses:
    """Return what a route may answer that has *struct* as JSON alone."""
    content = {JSON: {"schema": reference(struct)}}
    return {200: {"description": first_line(struct), "content": content}, **error_responses(*errors)}


def text_responses(description: str, media_types: tuple[str, ...], *errors: int) -> Responses:
    """Return what a route may answer that has text."""
    content = {media: {"schema": {"type": "string"}} for media in media_types}
    return {200: {"description": description, "content": content}, **error_responses(*errors)}


def error_responses(*errors: int) -> Responses:
    """Return the problems that a route may answer: the common ones and *errors*."""
    content = {problems.MEDIA_TYPE: {"schema": reference(Problem)}}
    found: Responses = {
        status: {"description": _TEXTS[status], "content": content, "headers": _ERROR_HEADERS.get(status, {})}
        for status in sorted({*_COMMON, *errors})
    }
    found[400] |= {"content": content | {"text/plain": {"schema": {"type": "string"}}}}  # uvicorn's own
    return found


def reference(struct: type[msgspec.Struct]) -> Document:
    """Return the reference to the schema of *struct*."""
    return {"$ref": _TEMPLATE.format(name=struct.__name__)}


def first_line(struct: type[msgspec.Struct]) -> str:
    """Return the first sentence of the docstring of *struct*."""
    return (struct.__doc__ or struct.__name__).partition("\n")[0]


def summary(endpoint: Callable[..., object]) -> str:
    """Return what *endpoint* does, as a heading: the first clause of its docstring."""
    return re.split(r"[:;.]", endpoint.__doc__ or "")[0]


def completed(document: Document, *, needs_token: bool) -> Document:
    """Return *document* with the schemas of all Structs, and with how the token is sent where one is needed."""
    components = document.setdefault("components", {})
    components["schemas"] = schemas()
    if needs_token:
        text = "The token; a browser sends it as the password of any user name."
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "description": text},
            "basic": {"type": "http", "scheme": "basic", "description": text},
        }
        document["security"] = [{"bearer": []}, {"basic": []}]
    return document


def schemas() -> Document:
    """Return the schemas of all Structs, by name."""
    _, found = msgspec.json.schema_components(STRUCTS, ref_template=_TEMPLATE)
    # For a reader in Python that does not insist on a sampler; over HTTP that is a 503.
    for key in ("no_sampler", "request"):
        del found[sm.Explanation.__name__]["properties"][key]
    for name, schema in found.items():
        if name != Problem.__name__:
            _require_all(schema)
    return found


def _require_all(schema: Document) -> None:
    """Say that every field is always there: a default is for who builds a Struct, not for who reads one."""
    properties: dict[str, Document] = schema.get("properties", {})
    if properties:
        schema["required"] = list(properties)
    for one in properties.values():
        one.pop("default", None)
