"""The newest sample as the routes want it: read once in a few milliseconds, encoded once per format."""

from __future__ import annotations

import time
from collections.abc import Callable

from anyio import CapacityLimiter, to_thread
from starlette.responses import Response

import shm_monitor as sm

# A snapshot of 170 metrics costs 19 us and grows with GPUs and interfaces; a request to FastAPI about 200 us. Reading
# again within 2 ms would tell nobody anything: samples are 50 ms apart or more in practice.
FRESH_SECONDS = 0.002
LARGE_KEPT = 8  # answers of a megabyte or so, of one sample


class Reading:
    """One snapshot, and what has been made of it so far.

    Attributes:
        snapshot: as the reader gave it.
        etag: ``W/"epoch-sequence"``, which ends with ``-stale`` once no live sampler stands behind it: the body says
            ``stale`` then, and a client that polls with ``If-None-Match`` must learn it.
        bodies: encoded, by whatever key a route chooses.
        answers: whole ones, which have no state of their own and so can be sent any number of times.
    """

    __slots__ = ("answers", "bodies", "etag", "snapshot")

    def __init__(self, snapshot: sm.Snapshot) -> None:
        self.snapshot = snapshot
        self.etag = f'W/"{snapshot.epoch}-{snapshot.sequence}{"-stale" if snapshot.stale else ""}"'
        self.bodies: dict[object, bytes] = {}
        self.answers: dict[object, Response] = {}


class Readings:
    """Reads one sampler for all routes. Not for threads: it belongs to the event loop.

    Attributes:
        reader: of the sampler, which may be absent.
    """

    def __init__(self, reader: sm.Reader, clock: Callable[[], float] = time.monotonic) -> None:
        self.reader = reader
        self._clock = clock
        self._newest: Reading | None = None
        self._read_at = float("-inf")

    def newest(self) -> Reading:
        """Return the newest sample, at most 2 ms old news.

        Raises:
            SegmentError: there is none.
        """
        now = self._clock()
        if self._newest is None or now - self._read_at > FRESH_SECONDS:
            self._newest = None
            self._newest = Reading(self.reader.snapshot())
            self._read_at = now
        return self._newest


class LargeAnswers:
    """Answers that take milliseconds: made in a thread, one at a time, and kept for as long as the sample is."""

    def __init__(self) -> None:
        # Threads share the interpreter: two at once would take as long, and hold up the loop for twice as long.
        self._one = CapacityLimiter(1)
        self._reading: Reading | None = None

    async def made(self, make: Callable[[], Response]) -> Response:
        """Return what *make* gives, called in a thread after those before it."""
        return await to_thread.run_sync(make, limiter=self._one)

    def of(self, reading: Reading) -> Reading:
        """Return the reading that keeps the answers of the sample of *reading*; for ``make``."""
        kept = self._reading
        if kept is None or kept.etag != reading.etag or len(kept.answers) >= LARGE_KEPT:
            kept = self._reading = Reading(reading.snapshot)
        return kept
