"""Answers: a body as bytes in the format that the client wants, or that it has this sample already."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response

import shm_monitor as sm
from shm_monitor_api import problems
from shm_monitor_api.guard import headers_of
from shm_monitor_api.listeners import NAME_HEADER
from shm_monitor_api.negotiation import DATA_FORMATS, JSON, MSGPACK, chosen
from shm_monitor_api.readings import Reading

Encoder = Callable[[object], bytes]
Maker = Callable[[sm.Snapshot], msgspec.Struct]

ENCODERS: dict[str, Encoder] = {JSON: msgspec.json.encode, MSGPACK: msgspec.msgpack.encode}
NOT_MODIFIED = "304"

_CACHE = [(b"cache-control", b"private, no-cache"), (b"vary", b"Accept")]
_TYPES = {media: (b"content-type", media.encode()) for media in DATA_FORMATS}
_STALE = (b"shm-monitor-stale", b"true")


class Encoded(Response):
    """A body that is bytes already, with the headers that every data route sends."""

    def __init__(self, body: bytes, media: str, reading: Reading) -> None:
        # Past Response.__init__, which encodes a dict of headers anew for every response: 5 us of about 200.
        self.status_code = 200
        self.background = None
        self.body = body
        self.raw_headers = [
            *_CACHE,
            _TYPES[media],
            (b"content-length", b"%d" % len(body)),
            *_of_sample(reading),
        ]


class NotModified(Response):
    """The client has this sample already."""

    def __init__(self, reading: Reading) -> None:
        self.status_code = 304
        self.background = None
        self.body = b""
        self.raw_headers = [*_CACHE, *_of_sample(reading)]


def _of_sample(reading: Reading) -> list[tuple[bytes, bytes]]:
    """Return the headers that say which sample an answer has, and of which sampler."""
    snapshot = reading.snapshot
    name = (NAME_HEADER.lower().encode(), snapshot.name.encode())
    return [(b"etag", reading.etag.encode()), name, *([_STALE] if snapshot.stale else ())]


def answered(request: Request, reading: Reading, make: Callable[[], object], key: object = None) -> Response:
    """Return what *make* gives in the format that the client wants, or that it has this sample already.

    Args:
        request: for its ``Accept`` and ``If-None-Match``.
        reading: the sample behind the answer.
        make: builds the body; called only when it is needed.
        key: under which the answer is kept for as long as the reading is; None for one that is not asked twice.
    """
    headers = headers_of(request.scope)
    media = chosen(headers.get(b"accept", b"").decode("latin-1"))
    if media is None:
        detail = f"no format of ours is among those; there are: {', '.join(DATA_FORMATS)}"
        return problems.problem(406, detail, instance=request.scope["path"])
    match = headers.get(b"if-none-match")
    if match is not None and holds(match.decode("latin-1"), reading.etag):
        return kept(reading, NOT_MODIFIED, lambda: NotModified(reading))
    if key is None:
        return Encoded(ENCODERS[media](make()), media, reading)
    return kept(reading, (key, media), lambda: Encoded(ENCODERS[media](make()), media, reading))


def of_snapshot(request: Request, reading: Reading, make: Maker) -> Response:
    """Return what *make* gives of the snapshot, and keep it as long as the reading is."""
    return answered(request, reading, lambda: make(reading.snapshot), make)


def kept(reading: Reading, key: object, make: Callable[[], Response]) -> Response:
    """Return the answer that *reading* keeps under *key*, made when it is asked for first."""
    answer = reading.answers.get(key)
    if answer is None:
        answer = reading.answers[key] = make()
    return answer


def holds(if_none_match: str, etag: str) -> bool:
    """Say whether the header *if_none_match* has *etag*, compared weakly (RFC 9110, 8.8.3.2)."""
    if if_none_match == etag:
        return True
    wanted = etag.removeprefix("W/")
    return any(one.strip().removeprefix("W/") in {wanted, "*"} for one in if_none_match.split(","))


def small(body: msgspec.Struct) -> Response:
    """Return *body* as JSON that nobody keeps."""
    return Response(msgspec.json.encode(body), media_type=JSON, headers={"cache-control": "no-store"})
