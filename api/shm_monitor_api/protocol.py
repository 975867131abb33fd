"""HTTP/1.1 as uvicorn speaks it, with time limits and with problems for what never reaches the application.

The parser is httptools where it is installed (190 us of CPU per request), else h11 (320 us).
"""

from __future__ import annotations

import asyncio
import resource
import socket
import sys
from functools import cache
from http import HTTPStatus
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from uvicorn.protocols.http.h11_impl import H11Protocol

from shm_monitor_api.guard import HEAD_BYTES_MAX
from shm_monitor_api.problems import problem

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

    _Base = H11Protocol  # what both parsers' protocols have, too
else:
    _Base = object

HEAD_SECONDS = 10.0  # a request must have come whole by then: curl and browsers send it in one packet
UNREAD_SECONDS = 20.0  # a client that reads nothing for as long is gone
STOP_SECONDS = 0.7  # what is not sent by then, when the server stops, is not sent
ACCEPTED_AT_ONCE = 64  # asyncio takes as many before the first of them can be refused
FILES_WANTED = 4096
FILES_KEPT = 64 + 3 * ACCEPTED_AT_ONCE  # for all but connections, and for those that are being refused


Parser = Literal["auto", "h11", "httptools"]


def protocol_class(parser: Parser = "auto") -> type[asyncio.Protocol]:
    """Return the protocol over *parser*; ``auto`` is httptools where it is installed."""
    if parser == "httptools" or (parser == "auto" and find_spec("httptools") is not None):
        from shm_monitor_api.protocol_httptools import LimitedHttpToolsProtocol

        return LimitedHttpToolsProtocol
    return LimitedH11Protocol


class OnePacket:
    """A transport that sends the head of an answer together with the beginning of its body.

    uvicorn writes them apart, which is one system call and one packet more: 30 us per answer.
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

    def flush(self) -> None:
        """Send what is kept: the answer to HEAD has nothing after it."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Send what is kept, then close."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Limits(_Base):
    """One connection. The parsers have limits of size, or none; those of time are here."""

    _due: float | None = None
    _timer: asyncio.TimerHandle | None = None
    _packets: OnePacket

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, unless there are too many already."""
        self._packets = OnePacket(transport)
        super().connection_made(self._packets)  # type: ignore[arg-type]
        if len(self.connections) > connections_max():
            return transport.abort()
        _drop_when_unread(transport.get_extra_info("socket"))
        self._expect_request()
        return self._look_at_clock()

    def data_received(self, data: bytes) -> None:
        """Handle what came; a request that is whole has no time limit any more."""
        super().data_received(data)
        if self._is_answering():
            self._due = None

    def on_response_complete(self) -> None:
        """Wait for the next request, but not for ever: neither for it nor for the rest of a body nobody reads."""
        self._packets.flush()
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
        """Answer what the parser refused with a problem; h11 says by its error what kind it is."""
        self.refuse(getattr(sys.exception(), "error_status_hint", HTTPStatus.BAD_REQUEST), msg)

    def refuse(self, status: int, detail: str) -> None:
        """Answer with a problem what never reaches the application, and close."""
        if self._is_answering():
            return self.transport.abort()  # in the middle of another answer
        if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            detail = f"headers of more than {HEAD_BYTES_MAX} bytes"
        answer = problem(status, detail, headers={"connection": "close"})
        lines = [b"%b: %b\r\n" % header for header in answer.raw_headers]
        phrase = HTTPStatus(status).phrase.encode()
        self.transport.write(b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, phrase, b"".join(lines)))
        self.transport.write(bytes(answer.body))
        return self.transport.close()

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn types it as always there
        return cycle is not None and not cycle.response_complete

    def _expect_request(self) -> None:
        self._due = self.loop.time() + HEAD_SECONDS

    def _look_at_clock(self) -> None:
        """Give up a request that is overdue. One timer per connection that looks now and then, none per request."""
        if self._due is not None and self.loop.time() >= self._due:
            return self.transport.abort()
        self._timer = self.loop.call_later(HEAD_SECONDS / 2, self._look_at_clock)
        return None


class LimitedH11Protocol(Limits, H11Protocol):
    """Over h11, which has a limit for heads itself: ``h11_max_incomplete_event_size``."""


def allow_files() -> None:
    """Let this process open as many files as it may want; the default is 1024 on Linux, 256 on macOS."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@cache
def connections_max() -> int:
    """Return how many connections there may be: fewer than files may be open, or accepting fails noisily."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max((FILES_WANTED if soft == resource.RLIM_INFINITY else soft) - FILES_KEPT, 1)


def _drop_when_unread(connection: Any) -> None:
    """Have the kernel end a connection whose peer takes nothing for ``UNREAD_SECONDS``.

    Source: tcp(7), TCP_USER_TIMEOUT, which holds for a closed window too. Linux only.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT") and getattr(connection, "family", None) in {socket.AF_INET, socket.AF_INET6}:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_SECONDS * 1000))
