"""HTTP/1.1 as uvicorn speaks it over h11, with bounds, and with problems for what never reaches the application.

h11 hands out one request at a time and keeps the rest as bytes, so what a client can make the server hold is what it
has sent and not yet been answered: at most one read. httptools, in C, parses all that has come and cannot be stopped:
200 clients that sent 250 KB of requests each made it hold 753 MB. What h11 costs: 118 us of CPU per answer, where
httptools and all of FastAPI took 70 us and h11 with FastAPI 141 us; 4,900 answers a second on one core, not 10,600.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from shm_monitor_api.budget import Budget, Seat, State
from shm_monitor_api.guard import HEAD_BYTES_MAX
from shm_monitor_api.problems import problem

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle
    from uvicorn.server import ServerState

READ_BYTES = 16 * 1024  # of a client's bytes at once; asyncio's own 256 KB would be kept while it is answered
WRITE_BYTES = 16 * 1024  # an answer that waits for its reader: beyond that the next one is not begun
UNREAD_SECONDS = 20.0  # a client that reads nothing for as long is gone
STOP_SECONDS = 0.7  # what is not sent by then, when the server stops, is not sent

# One for all connections: the loop fills it and hands it over before it turns to the next. A view, for the code of TLS
# slices it, and a slice of a bytearray would be a copy.
_READ = memoryview(bytearray(READ_BYTES))


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


class Pace:
    """Lets one request per turn of the loop begin, of those that were sent before the answer to another.

    Who sends many requests ahead waits for its own; who sends one finds the loop free.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[BoundedProtocol] = deque()

    def queue(self, connection: BoundedProtocol) -> None:
        """Have *connection* go on when its turn comes."""
        if not self._waiting:
            self._loop.call_soon(self._turn)
        self._waiting.append(connection)

    def _turn(self) -> None:
        connection = self._waiting.popleft()
        if self._waiting:
            self._loop.call_soon(self._turn)
        connection.go_on()


class BoundedProtocol(H11Protocol, asyncio.BufferedProtocol):
    """One connection: its time, its bytes and its requests are bounded."""

    _packets: OnePacket
    _completing = False
    _postponed = False

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        *,
        seat: Seat,
        budget: Budget,
        pace: Pace,
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._seat = seat
        self._budget = budget
        self._pace = pace

    # What the budget asks of its guests

    def drop(self) -> None:
        """End the connection at once."""
        self.transport.abort()

    def unsent_bytes(self) -> int:
        """Return how many bytes wait for the client to read."""
        return self.transport.get_write_buffer_size()

    # What the transport calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take over the seat."""
        self._packets = OnePacket(transport)
        super().connection_made(self._packets)  # type: ignore[arg-type]
        transport.set_write_buffer_limits(high=WRITE_BYTES)
        _drop_when_unread(transport.get_extra_info("socket"))
        self._seat.guest = self
        self._budget.move(self._seat, State.WAITING)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - it asks for as much as it can
        """Return where the next bytes go."""
        return _READ

    def buffer_updated(self, nbytes: int) -> None:
        """Handle the *nbytes* that came; a request that is whole has no time limit any more."""
        self.data_received(bytes(_READ[:nbytes]))
        if self._is_answering():
            self._budget.move(self._seat, State.ANSWERED)

    def pause_writing(self) -> None:
        """Note that the client does not read."""
        super().pause_writing()
        self._budget.move(self._seat, State.UNREAD)

    def resume_writing(self) -> None:
        """Go on with a client that reads again."""
        super().resume_writing()
        self._budget.move(self._seat, State.ANSWERED if self._is_answering() else State.WAITING)
        if self._postponed:
            self._postponed = False
            self._pace.queue(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the seat back."""
        self._budget.leave(self._seat)
        super().connection_lost(exc)

    # What uvicorn calls

    def handle_events(self) -> None:
        """Begin the next request, unless it was sent ahead: that one waits for its turn, and for its client to read."""
        if self._completing and self.conn.trailing_data[0]:
            self.flow.pause_reading()
            self._pace.queue(self)
        elif self.flow.write_paused and not self._is_answering():
            self.flow.pause_reading()
            self._postponed = True
        else:
            super().handle_events()

    def go_on(self) -> None:
        """Begin the request whose turn has come."""
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self.handle_events()
            if self._is_answering() and not self.flow.write_paused:
                self._budget.move(self._seat, State.ANSWERED)

    def on_response_complete(self) -> None:
        """Wait for the next request, but not for ever: neither for it nor for the rest of a body nobody reads."""
        self._packets.flush()
        if not self.flow.write_paused:
            self._budget.move(self._seat, State.WAITING)
        self._completing = True
        try:
            super().on_response_complete()
        finally:
            self._completing = False

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


def _drop_when_unread(connection: Any) -> None:
    """Have the kernel end a connection whose peer takes nothing for ``UNREAD_SECONDS``.

    Source: tcp(7), TCP_USER_TIMEOUT, which holds for a closed window too. Linux only.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT") and getattr(connection, "family", None) in {socket.AF_INET, socket.AF_INET6}:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_SECONDS * 1000))
