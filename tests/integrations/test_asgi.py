"""Requests are refused by the share that has to be shed, and never when it is calm."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import shm_monitor as sm
from shm_monitor.integrations.asgi import App, ShedMiddleware

if TYPE_CHECKING:
    from tests.support.pressed import Driven


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer 200, to everything."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


def answers(middleware: App, path: str = "/", count: int = 1) -> list[httpx.Response]:
    """Return the answers to *count* requests in a row."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=middleware)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return [await client.get(path) for _ in range(count)]

    return asyncio.run(ask())


def test_when_it_is_calm_every_request_is_answered(driven: Driven) -> None:
    assert {one.status_code for one in answers(ShedMiddleware(app, reader=driven.reader), count=50)} == {200}


@pytest.mark.parametrize("usage", [90.5, 94.0])
def test_the_share_of_refused_requests_is_the_shed_fraction(driven: Driven, usage: float) -> None:
    driven.press(usage)
    fraction = driven.reader.shed_fraction()
    assert 0.3 < fraction < 1.0

    found = answers(ShedMiddleware(app, reader=driven.reader), count=200)

    refused = [one for one in found if one.status_code == 503]
    assert abs(len(refused) / 200 - fraction) <= 0.05
    assert {int(one.headers["retry-after"]) for one in refused} == {math.ceil(30.0 * fraction)}
    assert refused[0].json()["status"] == 503


def test_health_checks_are_answered_whatever_presses(driven: Driven) -> None:
    driven.press(99.5)

    assert {one.status_code for one in answers(ShedMiddleware(app, reader=driven.reader), "/healthz", 20)} == {200}


def test_at_the_capacity_nearly_all_are_refused_and_after_it_none(driven: Driven) -> None:
    middleware = ShedMiddleware(app, reader=driven.reader)
    driven.press(99.5)
    assert sum(one.status_code == 503 for one in answers(middleware, count=100)) >= 95
    driven.calm()
    assert {one.status_code for one in answers(middleware, count=20)} == {200}


def test_websockets_and_lifespan_pass(driven: Driven) -> None:
    driven.press(99.5)
    seen = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    async def never() -> dict[str, Any]:
        return {}

    async def nothing(message: Any) -> None:
        return None

    middleware = ShedMiddleware(inner, reader=driven.reader)
    for kind in ("websocket", "lifespan"):
        asyncio.run(middleware({"type": kind, "path": "/"}, never, nothing))

    assert seen == ["websocket", "lifespan"]


def test_without_a_sampler_every_request_is_answered(name: str) -> None:
    reader = sm.attach(name, timeout=0.0, required=False)

    assert {one.status_code for one in answers(ShedMiddleware(app, reader=reader), count=20)} == {200}


@pytest.mark.parametrize("on_stale", ["raise", "never"])
def test_a_dead_sampler_refuses_nothing_and_raises_nothing(driven: Driven, on_stale: Any) -> None:
    driven.press(99.5)
    reader = sm.attach(driven.reader.name, on_stale=on_stale)
    driven.close()

    assert {one.status_code for one in answers(ShedMiddleware(app, reader=reader), count=20)} == {200}


def test_it_fits_into_starlette(driven: Driven) -> None:
    applications = pytest.importorskip("starlette.applications", reason="starlette is not installed")
    made = applications.Starlette()
    made.add_middleware(ShedMiddleware, reader=driven.reader)
    driven.press(99.5)

    assert [one.status_code for one in answers(made, count=2)][-1] == 503
