"""How many may be connected, and who has to go first when one more comes.

A connection has its seat from the moment it is accepted. When all seats are taken, the one that has kept its own
longest without using it is turned out: who has said nothing, then who does not finish a handshake, then who waits
between requests, then who does not read its answer. So who opens many connections loses its own, and one that asks and
reads is served. Nobody is turned out while it is being answered.
"""

from __future__ import annotations

import enum
import resource
import time
from collections.abc import Callable
from typing import Protocol

CONNECTIONS_MAX = 1024  # 512 listeners of /events, and as many more; 11 KB each
FILES_WANTED = 2048
FILES_KEPT = 128  # for all but connections, and for those that are being turned out
HANDSHAKES_MAX = 64  # each has 16 KB for its records and about 50 KB in OpenSSL
UNREAD_BYTES_MAX = 16 * 2**20
SILENT_SECONDS = 10.0
HANDSHAKE_SECONDS = 5.0
HEAD_SECONDS = 10.0  # a request must have come whole by then: curl and browsers send it in one packet


class State(enum.Enum):
    """What a connection is doing, in the order in which they are turned out; ANSWERED never is."""

    SILENT = enum.auto()
    SHAKING = enum.auto()
    WAITING = enum.auto()
    UNREAD = enum.auto()
    ANSWERED = enum.auto()

    __hash__ = object.__hash__  # Enum's own is Python code: half a microsecond at each move


TURNED_OUT = (State.SILENT, State.SHAKING, State.WAITING, State.UNREAD)
_SECONDS_MAX = {
    State.SILENT: SILENT_SECONDS,
    State.SHAKING: HANDSHAKE_SECONDS,
    State.WAITING: HEAD_SECONDS,
}  # who does not read is ended by the kernel


class Guest(Protocol):
    """What has a seat: a socket, later the protocol over it."""

    def drop(self) -> None:
        """End the connection at once."""

    def unsent_bytes(self) -> int:
        """Return how many bytes wait for the client to read."""


class Seat:
    """One connection's place; ``guest`` changes as the connection grows up.

    Attributes:
        guest: what ends when the seat is taken away.
        state: what it is doing.
        since: when it began to, in seconds of the budget's clock.
    """

    __slots__ = ("guest", "since", "state")

    def __init__(self, guest: Guest, since: float) -> None:
        self.guest = guest
        self.state = State.SILENT
        self.since = since


class Budget:
    """The seats of one server. Not for threads: it belongs to the event loop.

    Attributes:
        turned_out: how many had to go before their time.
    """

    def __init__(
        self,
        connections_max: Callable[[], int] | None = None,
        *,
        unread_bytes_max: int = UNREAD_BYTES_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.turned_out = 0
        self._connections_max = connections_max or allowed_connections
        self._unread_bytes_max = unread_bytes_max
        self._clock = clock
        # A dict keeps the order of arrival: the first of each is the one that has been there longest.
        self._seats: dict[State, dict[Seat, None]] = {state: {} for state in State}

    def __len__(self) -> int:
        """Return how many are connected."""
        return sum(map(len, self._seats.values()))

    def take(self, guest: Guest) -> Seat | None:
        """Return a seat for *guest*, somebody else's if need be; None where all others are being answered."""
        if len(self) >= self._connections_max() and not self._turn_one_out(TURNED_OUT):
            return None
        seat = Seat(guest, self._clock())
        self._seats[State.SILENT][seat] = None
        return seat

    def move(self, seat: Seat, state: State) -> None:
        """Note that the one on *seat* begins with *state*; nothing where it has lost the seat."""
        seats = self._seats[seat.state]
        if seat.state is state or seat not in seats:
            return
        del seats[seat]
        seat.state, seat.since = state, self._clock()
        self._seats[state][seat] = None
        if state is State.SHAKING and len(self._seats[state]) > HANDSHAKES_MAX:
            self._turn_one_out((state,))
        elif state is State.UNREAD:
            self._bound_unread()

    def leave(self, seat: Seat) -> None:
        """Give *seat* back. Safe to call again."""
        self._seats[seat.state].pop(seat, None)

    def turn_out(self, state: State) -> None:
        """Turn out everybody who is doing *state*."""
        for seat in list(self._seats[state]):
            self._drop(seat)

    def sweep(self) -> None:
        """Turn out everybody whose time is over."""
        now = self._clock()
        for state, limit in _SECONDS_MAX.items():
            for seat in list(self._seats[state]):
                if now - seat.since < limit:
                    break  # all behind it came later
                self._drop(seat)

    def _bound_unread(self) -> None:
        """Turn out those who have not read longest, until what waits to be read has room."""
        unread = self._seats[State.UNREAD]
        waiting = sum(seat.guest.unsent_bytes() for seat in unread)
        for seat in list(unread):
            if waiting <= self._unread_bytes_max:
                break
            waiting -= seat.guest.unsent_bytes()
            self.turned_out += 1
            self._drop(seat)

    def _turn_one_out(self, states: tuple[State, ...]) -> bool:
        for state in states:
            for seat in self._seats[state]:
                self.turned_out += 1
                self._drop(seat)
                return True
        return False

    def _drop(self, seat: Seat) -> None:
        self.leave(seat)
        seat.guest.drop()


def allow_files() -> None:
    """Let this process open as many files as it may want; the default is 1024 on Linux, 256 on macOS."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def allowed_connections() -> int:
    """Return how many connections there may be: fewer than files may be open, or accepting fails."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_MAX if soft == resource.RLIM_INFINITY else max(min(CONNECTIONS_MAX, soft - FILES_KEPT), 1)
