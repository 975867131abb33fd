"""Where the frames come from: a sampler of this machine by its name, or any API by its address."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec

from shm_monitor.errors import ConfigError, MonitorError, SegmentError
from shm_monitor.segment import layout, names, process_file
from shm_monitor.segment.status import LIVE
from shm_monitor.snapshot.decoder import Decoder
from shm_monitor.snapshot.named import named
from shm_monitor.snapshot.structs import Snapshot
from shm_monitor.units import printable
from shm_monitor.worker.attaching import attach
from shm_monitor.worker.explanation import Explanation
from shm_monitor.worker.injecting import inject
from shm_monitor.worker.reader import Reader

HTTP_SECONDS = 2.0  # a view that waits longer looks frozen
BODY_BYTES_MAX = 16 << 20
UNREACHABLE = "unreachable"


class Frame(NamedTuple):
    """What there is to show at one moment.

    Args:
        state: of the sampler, as ``shm_monitor.segment.status.Status`` has it, or ``unreachable``.
        snapshot: its newest sample; None where there is none.
        why: one line per reason that holds.
        detail: what is wrong, where something is.
    """

    state: str
    snapshot: Snapshot | None = None
    why: tuple[str, ...] = ()
    detail: str = ""

    @property
    def live(self) -> bool:
        """Whether a live sampler stands behind it."""
        return self.state == LIVE and self.snapshot is not None and not self.snapshot.stale

    @property
    def gone(self) -> str:
        """What to call a sampler that is not live."""
        return ("stale" if self.state == LIVE else self.state).upper()


class Source(Protocol):
    """One sampler, wherever it is.

    Attributes:
        title: what to call it.
        waits: whether ``newest`` may take long.
    """

    title: str
    waits: bool

    def newest(self) -> Frame:
        """Return what there is now; never raises for what the sampler does."""

    def past(self, count: int) -> list[Snapshot]:
        """Return up to *count* samples from before now, oldest first; none where the source keeps none."""

    def sources(self) -> dict[str, str]:
        """Return where each number comes from, by metric; empty where nobody says."""

    def inject(self, readings: dict[str, float], seconds: float) -> None:
        """Inject false readings for *seconds*.

        Raises:
            MonitorError: the sampler does not allow it.
        """

    def close(self) -> None:
        """Release what the source holds."""


class LocalSource:
    """A sampler of this machine."""

    waits = False

    def __init__(self, name: str | None) -> None:
        """Look for the sampler *name*, which may come later."""
        self._reader: Reader = attach(names.resolve(name), timeout=0.0, required=False, scope="any")
        self._reader.required = True  # once it was there, its absence is worth a message
        self.title = self._reader.name

    def newest(self) -> Frame:
        """Return the newest sample and the reasons that hold."""
        status = self._reader.status()
        if status.sequence is None:
            return Frame(status.state, detail=status.detail)
        try:
            why = tuple(str(reason) for reason in self._reader.explain().reasons)
            return Frame(status.state, self._reader.snapshot(), why, status.detail)
        except SegmentError as error:
            return Frame(status.state, detail=str(error))

    def past(self, count: int) -> list[Snapshot]:
        """Return what the ring has."""
        try:
            view = self._reader.view()
            decoder = Decoder(view.schema)
            newest = view.word(layout.HEAD_OFFSET)
        except SegmentError:
            return []
        past = (
            decoder.snapshot(
                sample,
                name=self.title,
                now_ns=time.monotonic_ns(),
                interval_ns=view.word(layout.INTERVAL_OFFSET),
                stale=False,
                collectors=view.collector_words(),
                injected=(),
            )
            for sample in view.samples(after=max(newest - count, 0))
        )
        processes = process_file.read(self.title)
        return [named(snapshot, processes) for snapshot in past]

    def sources(self) -> dict[str, str]:
        """Return the sources as the schema of the segment has them."""
        try:
            return {metric.name: metric.source for metric in self._reader.view().schema.metrics}
        except SegmentError:
            return {}

    def inject(self, readings: dict[str, float], seconds: float) -> None:
        """Inject false readings, if the sampler allows it."""
        inject(self._reader, readings, seconds)

    def close(self) -> None:
        """Detach."""
        self._reader.close()


class RemoteSource:
    """A sampler behind an API."""

    waits = True

    def __init__(self, url: str, token: str | None = None) -> None:
        """Ask the API at *url*, with *token* where it wants one.

        Raises:
            ConfigError: *url* is no address of an API.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
            raise ConfigError(
                "url", url, "argument", "http://HOST:PORT or https://HOST:PORT; a token: SHM_MONITOR_TOKEN"
            )
        self._base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._token = token
        self.title = self._base
        # A token must not follow a redirect to somebody else.
        self._opener = urllib.request.build_opener(_NoRedirect)

    def newest(self) -> Frame:
        """Return the newest sample and the reasons that hold."""
        try:
            snapshot = msgspec.msgpack.decode(self._get("/snapshot", "application/msgpack"), type=Snapshot)
            answer = msgspec.json.decode(self._get("/resources/prune", "application/json"), type=Explanation)
        except urllib.error.HTTPError as error:
            return Frame(UNREACHABLE, detail=_problem(error))
        except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
            return Frame(UNREACHABLE, detail=f"{self._base}: {getattr(error, 'reason', error)}")
        return Frame("stale" if snapshot.stale else LIVE, snapshot, tuple(map(str, answer.reasons)))

    def past(self, count: int) -> list[Snapshot]:  # noqa: ARG002 - an API serves columns of the ring, not whole samples
        """Return nothing: the view remembers what it has seen."""
        return []

    def sources(self) -> dict[str, str]:
        """Return the sources as the API's ``/schema`` has them."""
        try:
            schema = json.loads(self._get("/schema", "application/json"))
            return {one["name"]: printable(one["source"]) for one in schema["metrics"]}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def inject(self, readings: dict[str, float], seconds: float) -> None:  # noqa: ARG002 - as its Protocol
        """Refuse: an API only reads."""
        raise MonitorError(f"the API at {self._base} only reads; try on its machine: shm-monitor inject")

    def close(self) -> None:
        """Nothing is kept open."""

    def _get(self, path: str, media: str) -> bytes:
        request = urllib.request.Request(self._base + path, headers={"accept": media})  # noqa: S310 - checked above
        if self._token:
            request.add_unredirected_header("authorization", f"Bearer {self._token}")
        with self._opener.open(request, timeout=HTTP_SECONDS) as answer:
            return bytes(answer.read(BODY_BYTES_MAX))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Follow none."""


def _problem(error: urllib.error.HTTPError) -> str:
    """Return what the API says is wrong (RFC 9457), else its status."""
    try:
        problem = json.loads(error.read(BODY_BYTES_MAX))
        return f"{error.code}: {problem['detail']}"
    except (ValueError, KeyError, TypeError, OSError):
        return f"{error.code} {error.reason}"
