"""Accept connections: count them at once, and spend nothing on one before it has said something.

asyncio's own server accepts without a limit, and gives each connection of TLS 256 KB and a handshake before anybody
could count it: connections that said nothing stopped such a server for 49 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import struct
import sys
from asyncio import sslproto
from collections.abc import Callable

import uvicorn

from shm_monitor_api.budget import HANDSHAKE_SECONDS, Budget, Seat, State
from shm_monitor_api.protocol import BoundedProtocol, Pace

BACKLOG = 128  # of connections that the kernel keeps until they are accepted
ACCEPTED_AT_ONCE = 16  # before others have their turn: 1 ms
SWEEP_SECONDS = 1.0
RETRY_SECONDS = 0.5  # without files left nothing can be accepted: look again, but not at each turn
RECORD_BYTES = 16 * 1024  # of TLS at most (RFC 8446, 5.1)
STARTUP_FAILURE = 3  # as uvicorn's own
SHUTDOWN_SECONDS = 1.0  # for a client's part of TLS' farewell
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time
_NO_FILES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_log = logging.getLogger("shm_monitor.api")


class Arrival:
    """A connection that has not said anything yet, or still shakes hands."""

    def __init__(self, connection: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.connection = connection
        self.admission: asyncio.Task[None] | None = None
        self._loop = loop

    def drop(self) -> None:
        """Reset the connection; a farewell would keep it for a minute more."""
        if self.admission is None:
            self._loop.remove_reader(self.connection.fileno())
            reset(self.connection)
        else:
            self.admission.cancel()

    def unsent_bytes(self) -> int:
        """Return 0: nothing has been said to it."""
        return 0


class Gate:
    """The door of one listener: each connection takes a seat, then speaks, then gets its protocol."""

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[Seat], BoundedProtocol],
        budget: Budget,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._budget = budget
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._admissions: set[asyncio.Task[None]] = set()
        listener.settimeout(0)
        self._open()
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def close(self) -> None:
        """Accept no more, and end what has not become a connection yet."""
        self._sweeper.cancel()
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
        self._budget.turn_out(State.SILENT)
        self._budget.turn_out(State.SHAKING)

    async def wait_closed(self) -> None:
        """Return when it is closed, which it is at once."""

    def _open(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        """Accept some of those who wait."""
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if error.errno in _NO_FILES:
                    self._wait_for_files(error)
                    break
                continue  # that one is gone again; accept(2) lists what to ignore
            self._seat(connection)

    def _wait_for_files(self, error: OSError) -> None:
        _log.warning("no connection can be accepted: %s", error.strerror)
        self._loop.remove_reader(self._listener.fileno())
        self._loop.call_later(RETRY_SECONDS, self._open)

    def _seat(self, connection: socket.socket) -> None:
        connection.settimeout(0)
        arrival = Arrival(connection, self._loop)
        seat = self._budget.take(arrival)
        if seat is None:
            return reset(connection)
        self._loop.add_reader(connection.fileno(), self._hear, arrival, seat)
        return None

    def _hear(self, arrival: Arrival, seat: Seat) -> None:
        """Let in a connection that has said something; forget one that has gone without."""
        self._loop.remove_reader(arrival.connection.fileno())
        if not says_something(arrival.connection):
            self._budget.leave(seat)
            return arrival.connection.close()
        arrival.admission = self._loop.create_task(self._admit(arrival, seat))
        self._admissions.add(arrival.admission)
        arrival.admission.add_done_callback(self._admissions.discard)
        self._budget.move(seat, State.WAITING if self._tls is None else State.SHAKING)
        return None

    async def _admit(self, arrival: Arrival, seat: Seat) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._protocol(seat),
                arrival.connection,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if self._tls else None,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS if self._tls else None,
            )
        except (OSError, asyncio.CancelledError):  # no handshake, or no time left for it
            self._budget.leave(seat)
            reset(arrival.connection)

    def _sweep(self) -> None:
        self._budget.sweep()
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)


class Server(uvicorn.Server):
    """uvicorn, that accepts through a gate."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen on *sockets*."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        if self.config.ssl is not None:
            # asyncio fills 256 KB with zeros for each connection, and a request here has 16 KB at most.
            sslproto.SSLProtocol.max_size = RECORD_BYTES
        budget, pace = Budget(), Pace(asyncio.get_running_loop())

        def protocol(seat: Seat) -> BoundedProtocol:
            return BoundedProtocol(
                self.config, self.server_state, self.lifespan.state, seat=seat, budget=budget, pace=pace
            )

        gates = [Gate(listener, protocol, budget, self.config.ssl) for listener in sockets or ()]
        self.servers = gates  # type: ignore[assignment]
        self.started = True


def says_something(connection: socket.socket) -> bool:
    """Say whether *connection* has sent a byte, which stays there to be read."""
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except OSError:
        return False


def reset(connection: socket.socket) -> None:
    """End *connection* at once, with everything that waits in it."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()
