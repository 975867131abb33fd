"""Refuse requests under pressure: 503 with Retry-After, for as large a share of them as has to be shed.

A pure ASGI class, so it works in Starlette, FastAPI, Litestar, Quart, under any server, and needs none of them.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from shm_monitor.errors import MonitorError
from shm_monitor.integrations.pressure import Pressure
from shm_monitor.schema import Level

if TYPE_CHECKING:
    from shm_monitor.worker.reader import Reader

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY = b'{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"under memory pressure, try later"}'


class ShedMiddleware:
    """Answers 503 to the share of HTTP requests that ``shed_fraction()`` says, while the level is *on* or above.

    Which requests is not left to chance: of 100 in a row at a fraction of 0.3 exactly 30 are refused, spread evenly.
    Websockets and lifespan pass, and so do the *exempt* paths. Calm, a request costs one byte load more.
    """

    def __init__(
        self,
        app: App,
        *,
        on: Level = Level.PRUNE,
        retry_after: float = 30.0,
        exempt: Iterable[str] = ("/healthz", "/readyz"),
        reader: Reader | None = None,
    ) -> None:
        """Stand before *app*.

        Args:
            app: what answers otherwise.
            on: the level from which on requests are refused.
            retry_after: seconds that a client is told to wait at the capacity; in proportion to the fraction below it.
            exempt: paths that are always answered.
            reader: None asks the default sampler, as ``attach()`` does.
        """
        self.app = app
        self._pressure = Pressure(reader, on=on)
        self._retry_after = retry_after
        self._exempt = frozenset(exempt)
        self._owed = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or have it answered."""
        if scope["type"] == "http" and self._pressure("refusing requests") and scope["path"] not in self._exempt:
            fraction = self._fraction()
            self._owed += fraction
            if self._owed >= 1.0:
                self._owed -= 1.0
                return await _refuse(send, max(math.ceil(self._retry_after * fraction), 1))
        return await self.app(scope, receive, send)

    def _fraction(self) -> float:
        try:
            return self._pressure.reader.shed_fraction()
        except MonitorError:
            return 0.0


async def _refuse(send: Send, seconds: int) -> None:
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(BODY)),
        (b"retry-after", b"%d" % seconds),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})
