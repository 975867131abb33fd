"""The data routes: each reads what is already there and encodes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response

import shm_monitor as sm
from shm_monitor.segment import episode_file
from shm_monitor.snapshot.episode_log import read as read_episodes
from shm_monitor.worker import without_sampler
from shm_monitor_api import bodies, problems
from shm_monitor_api.guard import HEADERS
from shm_monitor_api.listeners import NAME_HEADER
from shm_monitor_api.negotiation import DATA_FORMATS, JSON, MSGPACK, chosen
from shm_monitor_api.queries import HistoryQuery, InvalidQueryError, episodes_query, history_query
from shm_monitor_api.readings import Reading, Readings

if TYPE_CHECKING:
    from shm_monitor_api.settings import ApiConfig

Encoder = Callable[[object], bytes]
Maker = Callable[[sm.Snapshot], msgspec.Struct]

ENCODERS: dict[str, Encoder] = {JSON: msgspec.json.encode, MSGPACK: msgspec.msgpack.encode}
NOT_MODIFIED = "304"

_CACHE = [(b"cache-control", b"private, no-cache"), (b"vary", b"Accept")]
_TYPES = {media: (b"content-type", media.encode()) for media in DATA_FORMATS}
_STALE = (b"shm-monitor-stale", b"true")


class Encoded(Response):
    """A body that is bytes already, with the headers that every data route sends."""

    def __init__(self, body: bytes, media: str, reading: Reading) -> None:
        # Past Response.__init__, which encodes a dict of headers anew for every response: 5 us of about 200.
        self.status_code = 200
        self.background = None
        self.body = body
        self.raw_headers = [
            *_CACHE,
            _TYPES[media],
            (b"content-length", b"%d" % len(body)),
            *_of_sample(reading),
        ]


class NotModified(Response):
    """The client has this sample already."""

    def __init__(self, reading: Reading) -> None:
        self.status_code = 304
        self.background = None
        self.body = b""
        self.raw_headers = [*_CACHE, *_of_sample(reading)]


def _of_sample(reading: Reading) -> list[tuple[bytes, bytes]]:
    """Return the headers that say which sample an answer has, and of which sampler."""
    snapshot = reading.snapshot
    name = (NAME_HEADER.lower().encode(), snapshot.name.encode())
    return [(b"etag", reading.etag.encode()), name, *([_STALE] if snapshot.stale else ())]


def answered(request: Request, reading: Reading, make: Callable[[], object], key: object = None) -> Response:
    """Return what *make* gives in the format that the client wants, or that it has this sample already.

    Args:
        request: for its ``Accept`` and ``If-None-Match``.
        reading: the sample behind the answer.
        make: builds the body; called only when it is needed.
        key: under which the answer is kept for as long as the reading is; None for one that is not asked twice.
    """
    headers: dict[bytes, bytes] = request.scope[HEADERS]
    media = chosen(headers.get(b"accept", b"").decode("latin-1"))
    if media is None:
        detail = f"no format of ours is among those; there are: {', '.join(DATA_FORMATS)}"
        return problems.problem(406, detail, instance=request.scope["path"])
    match = headers.get(b"if-none-match")
    if match is not None and holds(match.decode("latin-1"), reading.etag):
        return kept(reading, NOT_MODIFIED, lambda: NotModified(reading))
    if key is None:
        return Encoded(ENCODERS[media](make()), media, reading)
    return kept(reading, (key, media), lambda: Encoded(ENCODERS[media](make()), media, reading))


def kept(reading: Reading, key: object, make: Callable[[], Response]) -> Response:
    """Return the answer that *reading* keeps under *key*, made when it is asked for first."""
    answer = reading.answers.get(key)
    if answer is None:
        answer = reading.answers[key] = make()
    return answer


def holds(if_none_match: str, etag: str) -> bool:
    """Say whether the header *if_none_match* has *etag*, compared weakly (RFC 9110, 8.8.3.2)."""
    if if_none_match == etag:
        return True
    wanted = etag.removeprefix("W/")
    return any(one.strip().removeprefix("W/") in {wanted, "*"} for one in if_none_match.split(","))


class DataRoutes:
    """The endpoints over one sampler. ``async`` without await: a read takes microseconds, a hop to a thread 75."""

    def __init__(self, readings: Readings, config: ApiConfig) -> None:
        self._readings = readings
        self._reader = readings.reader
        self._history_values_max = config.history_values_max

    async def get_all(self, request: Request) -> Response:
        """Return the resources of the newest sample."""
        return self._of_snapshot(request, bodies.Resources.of)

    async def get_cpu(self, request: Request) -> Response:
        """Return the CPU use of the newest sample."""
        return self._of_snapshot(request, bodies.CpuResource.of)

    async def get_memory(self, request: Request) -> Response:
        """Return the memory in use in the newest sample."""
        return self._of_snapshot(request, bodies.MemoryResource.of)

    async def get_gpu(self, request: Request) -> Response:
        """Return the use of the GPUs in the newest sample."""
        return self._of_snapshot(request, bodies.GpuResource.of)

    async def get_network(self, request: Request) -> Response:
        """Return the network traffic of the newest sample."""
        return self._of_snapshot(request, bodies.NetworkResource.of)

    async def get_snapshot(self, request: Request) -> Response:
        """Return everything of the newest sample."""
        reading = self._readings.newest()
        return answered(request, reading, lambda: reading.snapshot, "snapshot")

    async def get_prune(self, request: Request) -> Response:
        """Say whether work should be shed now, and why."""
        # The tag before the body: a body newer than its tag is fetched once more, an older one would be kept.
        return answered(request, self._readings.newest(), self._reader.explain, "prune")

    async def get_workers(self, request: Request) -> Response:
        """Return the workers that have presented themselves."""
        return self._of_snapshot(request, bodies.PresentWorkers.of)

    async def get_episodes(self, request: Request) -> Response:
        """Return when pressure began, changed and ended: what the log has, which outlives its sampler."""
        try:
            since = episodes_query(request.scope["query_string"]).since
        except InvalidQueryError as error:
            return problems.problem(422, str(error), instance=request.scope["path"], errors=error.errors)
        try:
            reading = self._reading_of_log()
            return answered(
                request, reading, lambda: bodies.EpisodeEvents(read_episodes(self._reader.name, since=since))
            )
        except sm.SamplerError as error:  # too many open files
            return problems.problem(503, str(error), instance=request.scope["path"])

    def _reading_of_log(self) -> Reading:
        """Return the newest sample; where there is none but a log, an empty one with the tag of the log.

        Raises:
            SegmentError: there is neither.
        """
        try:
            return self._readings.newest()
        except sm.SegmentError as error:
            inode, size = episode_file.state_of(self._reader.name)
            if not size:
                raise
            reading = Reading(without_sampler.snapshot(self._reader, error))
            reading.etag = f'W/"log-{inode}-{size}"'
            return reading

    async def get_schema(self, request: Request) -> Response:
        """Return what is measured and what is limited: name, unit, help, source."""
        return answered(request, self._readings.newest(), lambda: bodies.SchemaTable.of(self._reader), "schema")

    async def get_history(self, request: Request) -> Response:
        """Return the samples that the ring still has, as columns: one of times, one per metric."""
        try:
            asked = history_query(request.scope["query_string"])
        except InvalidQueryError as error:
            return problems.problem(422, str(error), instance=request.scope["path"], errors=error.errors)
        reading = self._readings.newest()
        names = None if asked.metrics is None else [one.strip() for one in asked.metrics.split(",") if one.strip()]
        values = self._most_values(reading.snapshot, names, asked)
        if values > self._history_values_max:
            limit = self._history_values_max
            detail = f"up to {values} numbers, allowed are {limit}; try: fewer metrics, fewer seconds, a larger step"
            return problems.problem(403, detail, instance=request.scope["path"])
        try:
            columns = self._reader.history(metrics=names, seconds=asked.seconds, since=asked.since, step=asked.step)
        except sm.UnknownMetricError as error:
            detail = f"no metric {error.asked!r}; GET /schema lists them all"
            return problems.problem(404, detail, instance=request.scope["path"], kind=problems.UNKNOWN_METRIC)
        return answered(request, reading, lambda: columns)

    def _most_values(self, newest: sm.Snapshot, names: Sequence[str] | None, asked: HistoryQuery) -> int:
        """Return how many numbers a history can have at most, without reading it."""
        view = self._reader.view()
        samples = min(max(newest.sequence - asked.since, 0), view.header.slot_count)
        # Compared before it is divided: 1e308 seconds of samples at 20 Hz are more than a float can count.
        seconds = asked.seconds
        if seconds is not None and seconds < samples * newest.interval_seconds:
            samples = min(samples, int(seconds / newest.interval_seconds) + 2)
        columns = view.schema.rolled_count if names is None else len(set(names))
        return math.ceil(samples / asked.step) * columns

    async def get_healthz(self, request: Request) -> Response:  # noqa: ARG002 - as all endpoints
        """Say that this process answers."""
        return _small(bodies.Alive())

    async def get_readyz(self, request: Request) -> Response:
        """Say whether a live sampler stands behind the answers; 503 when none does."""
        status = self._reader.status()
        if status.state == "live" and status.sequence is not None and status.age_seconds is not None:
            return _small(bodies.Ready(status.sequence, status.age_seconds))
        detail = status.detail or (
            f"the sampler {status.name!r} is {status.state}; try: shm-monitor status --name {status.name}"
        )
        return problems.problem(
            503,
            detail,
            instance=request.scope["path"],
            kind=problems.NOT_READY,
            headers={"retry-after": problems.RETRY_SECONDS},
        )

    def _of_snapshot(self, request: Request, make: Maker) -> Response:
        reading = self._readings.newest()
        return answered(request, reading, lambda: make(reading.snapshot), make)


def _small(body: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(body), media_type=JSON, headers={"cache-control": "no-store"})
