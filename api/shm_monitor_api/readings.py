"""The newest sample as the routes want it: read once in a few milliseconds, encoded once per format."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.responses import Response

import shm_monitor as sm

# A snapshot of 170 metrics costs 19 us and grows with GPUs and interfaces; a request to FastAPI about 200 us. Reading
# again within 2 ms would tell nobody anything: samples are 50 ms apart or more in practice.
FRESH_SECONDS = 0.002


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
