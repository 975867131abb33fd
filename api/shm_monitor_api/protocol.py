"""HTTP/1.1 as uvicorn speaks it, with time limits and with problems for what never reaches the application."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from shm_monitor_api.problems import problem

HEAD_SECONDS = 10.0  # a request must have come whole by then: curl and browsers send it in one packet
UNREAD_SECONDS = 20.0  # a client that reads nothing for as long is gone
STOP_SECONDS = 0.7  # what is not sent by then, when the server stops, is not sent
CONNECTIONS_MAX = 900  # below the 1024 files that a process may open by default
HEAD_BYTES_MAX = 16 * 1024


class OnePacket:
    """A transport that sends the head of an answer together with the beginning of its body.

    uvicorn writes them apart, which is one system call and one packet more: 30 of 320 us per answer. After a head
    there is always one more write.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def write(self, data: bytes) -> None:
        """Write *data*, or keep it if it is a head; an interim answer goes out at once."""
        if data[:5] == b"HTTP/" and data[9:12] != b"100":
            self._head = data
        elif data or self._head:
            head, self._head = self._head, b""
            self._transport.write(head + data if head else data)

    def close(self) -> None:
        """Send what is kept, then close."""
        if self._head:
            self._transport.write(self._head)
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class LimitedProtocol(H11Protocol):
    """One connection. h11 has limits of size; those of time are here."""

    _due: float | None = None
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, unless there are too many already."""
        super().connection_made(OnePacket(transport))  # type: ignore[arg-type]
        if len(self.connections) > CONNECTIONS_MAX:
            return transport.abort()
        _drop_when_unread(transport.get_extra_info("socket"))
        self._expect_request()
        return self._look_at_clock()

    def data_received(self, data: bytes) -> None:
        """Handle what came; a request that is whole has no time limit any more."""
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn types it as always there
        if cycle is not None and not cycle.response_complete:
            self._due = None

    def on_response_complete(self) -> None:
        """Wait for the next request, but not for ever: neither for it nor for the rest of a body nobody reads."""
        super().on_response_complete()
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End cleanly if the client lets us: one that does not read would keep the server from stopping."""
        super().shutdown()
        self.loop.call_later(STOP_SECONDS, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP/1.1, or too large, with a problem; h11 says by its error which of them it is."""
        status = getattr(sys.exception(), "error_status_hint", 400)
        detail = f"headers of more than {HEAD_BYTES_MAX} bytes" if status == 431 else msg
        answer = problem(status, detail, headers={"connection": "close"})
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            for event in (
                h11.Response(status_code=status, headers=answer.raw_headers),
                h11.Data(data=bytes(answer.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _expect_request(self) -> None:
        self._due = self.loop.time() + HEAD_SECONDS

    def _look_at_clock(self) -> None:
        """Give up a request that is overdue. One timer per connection that looks now and then, none per request."""
        if self._due is not None and self.loop.time() >= self._due:
            return self.transport.abort()
        self._timer = self.loop.call_later(HEAD_SECONDS / 2, self._look_at_clock)
        return None


def _drop_when_unread(connection: Any) -> None:
    """Have the kernel end a connection whose peer takes nothing for ``UNREAD_SECONDS``.

    Source: tcp(7), TCP_USER_TIMEOUT, which holds for a closed window too. Linux only.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT") and getattr(connection, "family", None) in {socket.AF_INET, socket.AF_INET6}:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_SECONDS * 1000))
