"""Whatever stands in a request line or its headers: an answer that is meant, never a 500 and never an exception."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shm_monitor_api import ApiConfig, create_app
from tests.support.api_server import PATHS, MortalSampler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp, Message

pytestmark = pytest.mark.thorough

MEANT = {200, 304, 400, 403, 404, 405, 406, 413, 421, 422, 431}
NAME = f"test-api-fuzz-{os.getpid()}"
SECONDS = 20.0
NUMBERS = (st.floats() | st.integers() | st.integers(10**17, 10**320) | st.integers(-(10**320), 0)).map(str)
WORDS = st.sampled_from(
    [
        "",
        "nan",
        "inf",
        "-0",
        "1e308",
        "1e-320",
        "0x10",
        "1_0",
        "\uff11",
        "true",
        ",",
        ",,,",
        "cpu.cpu_percent",
        "a," * 4000,
    ]
)
VALUES = (NUMBERS | WORDS | st.text(max_size=30)).map(lambda text: quote(text, errors="replace").encode())
BYTES = st.binary(max_size=60)
KEYS = st.sampled_from([b"seconds", b"since", b"step", b"metrics", b"token", b"", b"%00", b"seconds[]"])
PAIRS = st.tuples(KEYS, VALUES | BYTES).map(b"=".join)
QUERIES = st.lists(PAIRS | BYTES, max_size=5).map(b"&".join)
TOKENS = st.sampled_from(
    [b"*/*", b"application/json", b"application/openmetrics-text", b"text/plain", b"text/event-stream", b"a/b", b"/"]
)
PARAMETERS = st.sampled_from([b"", b";q=nan", b";q=1e999", b";q=-1", b";version=foo", b";version=1.0.0", b";q", b";=;"])
ACCEPTS = st.lists(st.tuples(TOKENS, PARAMETERS).map(b"".join) | BYTES, max_size=4).map(b",".join)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"if-none-match", b"last-event-id", b"range", b"content-length", b"authorization", b"origin"]),
        BYTES | NUMBERS.map(str.encode),
    ),
    max_size=2,
)
HOSTS = st.just(b"localhost") | st.just(b"[::1]:80") | BYTES


@pytest.fixture(scope="module")
def app() -> Iterator[ASGIApp]:
    sampler = MortalSampler(NAME, gpus=1)
    sampler.feed(*[50.0] * 20)
    yield create_app(ApiConfig(name=NAME))
    sampler.die()


def status_of(app: ASGIApp, path: str, query: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    """Return the status of one request, given to the application as a server gives it."""
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8909),
        "client": ("127.0.0.1", 1),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(errors="replace"),
        "query_string": query,
        "headers": headers,
    }
    statuses = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def ask() -> None:
        async with asyncio.timeout(20):
            await app(scope, receive, send)

    asyncio.run(ask())
    assert len(statuses) == 1
    return int(statuses[0])


@pytest.mark.processes
@given(
    path=st.sampled_from(["/history", "/history", *PATHS, "/metrics"]) | st.text(max_size=20).map("/".__add__),
    query=QUERIES,
    accept=ACCEPTS,
    host=HOSTS,
    headers=HEADERS,
)
def test_any_request_gets_an_answer_that_is_meant(
    app: ASGIApp, path: str, query: bytes, accept: bytes, host: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    assert status_of(app, path, query, [(b"host", host), (b"accept", accept), *headers]) in MEANT


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_any_request_gets_an_answer_that_is_meant_for_many_seconds(app: ASGIApp) -> None:
    """The same for a time, not for a number of examples."""
    end = time.monotonic() + SECONDS

    @given(path=st.sampled_from(["/history", *PATHS, "/metrics"]), query=QUERIES, accept=ACCEPTS, headers=HEADERS)
    @settings(max_examples=500, database=None)
    def any_request(path: str, query: bytes, accept: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        assert status_of(app, path, query, [(b"host", b"localhost"), (b"accept", accept), *headers]) in MEANT

    rounds = 0
    while time.monotonic() < end:
        any_request()
        rounds += 1
    assert rounds
