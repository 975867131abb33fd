"""Server-sent events: one encode per sample, fanned out to every client.

The stream keeps the newest events once, for all. A client is a place in that row, no queue of its own: who reads too
slowly finds that the row has moved on, and loses samples, never memory.
Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import msgspec
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

import shm_monitor as sm
from shm_monitor_api.bodies import Liveness
from shm_monitor_api.readings import Reading, Readings

KEPT_EVENTS = 128  # about 5 KB each: what a client can miss and still resume
KEEPALIVE_COMMENT = b": ping\n\n"
KEEPALIVE_SECONDS = 15.0  # the interval that the specification recommends against proxies that time out
RECONNECT_MS = 2000
POLL_SECONDS_MIN = 0.005
POLL_SECONDS_MAX = 0.25  # also how late a death is told
WITHOUT_SAMPLER_SECONDS = 0.5
WRITING_SECONDS = 0.002  # from the time in a sample to its publication

_log = logging.getLogger("shm_monitor.api")


class Event(NamedTuple):
    """Some bytes of the stream.

    Args:
        sequence: of the sample in it; 0 where there is none.
        data: one event or several, as they go over the wire.
    """

    sequence: int
    data: bytes


class EventStream:
    """Watches one sampler and keeps what has happened, for any number of clients.

    Attributes:
        clients: how many listen now.
        encoded_count: how many samples were encoded since the start.
    """

    def __init__(
        self,
        readings: Readings,
        *,
        max_clients: int,
        kept: int = KEPT_EVENTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clients = 0
        self.encoded_count = 0
        self._readings = readings
        self._max_clients = max_clients
        self._clock = clock
        self._events: deque[Event] = deque(maxlen=kept)
        self._end = 0  # how many events there ever were: the place behind the newest
        self._happened = asyncio.Event()
        self._stopped = False
        self._watcher: asyncio.Task[None] | None = None
        self._last_event_at = 0.0
        self._sequence = 0
        self._epoch = 0
        self._verdict: object = None
        self._liveness: Liveness | None = None

    def start(self) -> None:
        """Let clients in, after ``stop`` again."""
        self._stopped = False

    def take_seat(self) -> bool:
        """Count one more client, if there is room; ``leave`` gives the seat back."""
        if self.clients >= self._max_clients or self._stopped:
            return False
        self.clients += 1
        return True

    def leave(self) -> None:
        """Count one client less."""
        self.clients -= 1

    def stop(self) -> None:
        """End every stream after what it is sending now. Safe to call again."""
        self._stopped = True
        self._wake()
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def follow(self, last_event_id: int | None) -> AsyncIterator[bytes]:
        """Yield what a client gets: where it left off, else the newest sample, then each event as it happens."""
        if self._watcher is None:
            self._look()
            self._watcher = asyncio.create_task(self._watch())
        yield f"retry: {RECONNECT_MS}\n\n".encode()
        place = self._place_after(last_event_id)
        opening = self._opening(resumes=place is not None)
        place = self._end if place is None else place
        for data in opening:
            yield data
        while not self._stopped:
            place = max(place, self._end - len(self._events))  # too slow: those between are lost
            while place < self._end and not self._stopped:
                data = self._events[place - self._end].data
                place += 1
                yield data
                place = max(place, self._end - len(self._events))
            if place == self._end and not self._stopped:
                await self._happened.wait()

    def _place_after(self, last_event_id: int | None) -> int | None:
        """Return the place of the first event after sample *last_event_id*; None where that is no longer known."""
        known = [event.sequence for event in self._events if event.sequence]
        if last_event_id is None or not known or not known[0] - 1 <= last_event_id <= known[-1]:
            return None
        missed = (at for at, event in enumerate(self._events) if event.sequence > last_event_id)
        return self._end - len(self._events) + next(missed, len(self._events))

    def _opening(self, *, resumes: bool) -> list[bytes]:
        """Return what a client must know at once: that no sampler is alive; the verdict and the sample it lacks."""
        found = [_event("stale", self._liveness)] if self._liveness is not None and self._liveness.stale else []
        if resumes:
            return found
        try:
            reading = self._readings.newest()
            return [*found, _event("prune", self._readings.reader.explain()), self._sample(reading)]
        except sm.SegmentError:
            return found  # the stale event says that there is none

    async def _watch(self) -> None:
        while not self._stopped:
            try:
                pause = self._look()
            except Exception:  # noqa: BLE001 - a fault of ours must not silence the stream for ever
                _log.exception("the stream of events skips a sample")
                pause = WITHOUT_SAMPLER_SECONDS
            await asyncio.sleep(pause)

    def _look(self) -> float:
        """Tell what is new, and return in how many seconds the next sample can be there."""
        try:
            reading = self._readings.newest()
        except sm.SegmentError:
            self._tell_liveness(stale=True)
            self._keep_alive()
            return WITHOUT_SAMPLER_SECONDS
        snapshot = reading.snapshot
        self._tell_liveness(stale=snapshot.stale)
        if (snapshot.epoch, snapshot.sequence) != (self._epoch, self._sequence):
            self._tell_sample(reading)
        self._keep_alive()
        due = snapshot.interval_seconds - snapshot.age_seconds
        late = snapshot.interval_seconds / 50  # it should be there by now: look often, but not at each turn
        return min(max(due + WRITING_SECONDS if due > 0 else late, POLL_SECONDS_MIN), POLL_SECONDS_MAX)

    def _tell_sample(self, reading: Reading) -> None:
        snapshot = reading.snapshot
        if snapshot.sequence < self._sequence:  # another segment, whose numbers begin again
            self._events.clear()
        self._epoch, self._sequence = snapshot.epoch, snapshot.sequence
        data = self._sample(reading)
        verdict = (snapshot.level, tuple((one.limit, one.reasons) for one in snapshot.limits if one.reasons))
        if verdict != self._verdict:
            self._verdict = verdict
            try:
                data = _event("prune", self._readings.reader.explain()) + data
            except sm.SegmentError:
                self._verdict = None  # gone since: the next sample tells it
        self._happen(Event(snapshot.sequence, data))

    def _sample(self, reading: Reading) -> bytes:
        """Return the ``snapshot`` event of *reading*, encoded once."""
        data = reading.bodies.get("event")
        if data is None:
            self.encoded_count += 1
            sequence = str(reading.snapshot.sequence)
            data = reading.bodies["event"] = _event("snapshot", reading.snapshot, sequence)
        return data

    def _tell_liveness(self, *, stale: bool) -> None:
        """Tell when the sampler dies, disappears, or is back."""
        before = self._liveness
        if before is not None and before.stale == stale:
            return
        status = self._readings.reader.status()
        self._liveness = Liveness(stale, status.state, status.detail, status.age_seconds)
        if stale or before is not None:
            self._happen(Event(0, _event("stale", self._liveness)))

    def _keep_alive(self) -> None:
        if self._clock() - self._last_event_at >= KEEPALIVE_SECONDS:
            self._happen(Event(0, KEEPALIVE_COMMENT))

    def _happen(self, event: Event) -> None:
        self._events.append(event)
        self._end += 1
        self._last_event_at = self._clock()
        self._wake()

    def _wake(self) -> None:
        happened, self._happened = self._happened, asyncio.Event()
        happened.set()


def _event(name: str, body: object, identifier: str | None = None) -> bytes:
    end = b"\n\n" if identifier is None else b"\nid: %b\n\n" % identifier.encode()
    return b"event: %b\ndata: %b%b" % (name.encode(), msgspec.json.encode(body), end)  # JSON has no line ends


class EventsResponse(StreamingResponse):
    """One client of the stream, whose seat is given back however it ends."""

    media_type = "text/event-stream"

    def __init__(self, stream: EventStream, last_event_id: int | None) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}  # nginx would hold events back
        super().__init__(stream.follow(last_event_id), headers=headers)
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the client or the server ends."""
        # 2.3 has Starlette listen for the client's leave. uvicorn 0.30 says 2.4, and then sends into the void for ever.
        scope = {**scope, "asgi": {**scope["asgi"], "spec_version": "2.3"}}
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.leave()


def sequence_of(last_event_id: str | None) -> int | None:
    """Return the sequence in a ``Last-Event-ID`` header; None for what cannot be one of ours."""
    text = (last_event_id or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
