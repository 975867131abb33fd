"""The API as tests meet it: its application called directly, and whole server processes on a port of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import httpx

from shm_monitor_api import ApiConfig, create_app
from shm_monitor_api.readings import FRESH_SECONDS
from tests.support.fake_sampler import FakeSampler
from tests.support.surroundings import child_environment

if TYPE_CHECKING:
    from types import TracebackType

    from starlette.applications import Starlette

HOST = "127.0.0.1"
START_SECONDS = 30.0
LISTENS = ("listening on", "running on")  # ours, uvicorn's own
TOKEN = "0123456789abcdef-a-token"
PATHS = (
    "/resources/all",
    "/resources/cpu",
    "/resources/memory",
    "/resources/gpu",
    "/resources/network",
    "/resources/prune",
    "/snapshot",
    "/history",
    "/workers",
    "/episodes",
    "/schema",
    "/replay",
)
EVERY_KIND = ("/resources/all", "/snapshot", "/metrics", "/events", "/docs", "/", "/openapi.json", "/readyz", "/nope")


class Asked:
    """Asks an application without a server; each request has an event loop of its own."""

    def __init__(self, app: Starlette, base_url: str = "http://127.0.0.1:8909") -> None:
        self.app = app
        self._base_url = base_url

    def __call__(self, path: str, method: str = "GET", **options: Any) -> httpx.Response:
        """Return the answer to one request, made when nothing read before counts as new any more."""
        time.sleep(FRESH_SECONDS)

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=self._base_url) as client:
                return await client.request(method, path, **options)

        return asyncio.run(ask())


def asked(name: str, **settings: Any) -> Asked:
    """Return what asks a new application for the sampler *name*."""
    return Asked(create_app(ApiConfig(name=name, **settings)))


class MortalSampler(FakeSampler):
    """A sampler in this process that a test may end before its fixture does."""

    _dead = False

    def die(self) -> None:
        """Stop; the segment stays, without a sampler behind it."""
        if not self._dead:
            self._dead = True
            self.close()


class ApiProcess:
    """One API process; its stderr is kept, so that a test can look for what must not be there."""

    def __init__(
        self,
        *arguments: str,
        command: tuple[str, ...] = ("shm_monitor_api",),
        environ: Mapping[str, str] | None = None,
        until: tuple[str, ...] = LISTENS,
    ) -> None:
        """Start it and wait until a line of its log has one of the words *until*, or it ends."""
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", *command, *arguments],
            env=child_environment(**(environ or {})),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._until = until
        self._listens = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = 0
        if self._listens.wait(START_SECONDS):
            found = re.search(r" on https?://\S+:(\d+)", self.log)
            self.port = int(found[1]) if found else 0
        self.url = f"http://{HOST}:{self.port}"

    @property
    def log(self) -> str:
        """What it has written to stderr so far."""
        return "".join(self.lines)

    def stop(self) -> int:
        """Ask it to stop as a service manager does; return its status. How long it takes: bench/."""
        self.process.terminate()
        return self.process.wait(20)

    def __enter__(self) -> Self:
        if not self.port:
            self.end()
        assert self.port, self.log
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Kill it if it still runs, and let go of its pipes."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if any(words in line for words in self._until):
                self._listens.set()
        self._listens.set()


@contextlib.contextmanager
def connected(port: int, *, timeout: float = 10.0) -> Iterator[socket.socket]:
    """Have a connection to *port* of this machine, to send what no client library would."""
    with socket.create_connection((HOST, port), timeout=timeout) as connection:
        yield connection


def exchanged(port: int, data: bytes, *, timeout: float = 10.0) -> bytes:
    """Send *data* and return everything that comes back until the server closes or says no more."""
    with connected(port, timeout=timeout) as connection:
        with contextlib.suppress(ConnectionError):  # it may refuse before it has read all
            connection.sendall(data)
        return received(connection)


def received(connection: socket.socket, *, until: bytes = b"") -> bytes:
    """Return what comes until the end, or until *until* is in it."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            found += part
            if until and until in found:
                break
    return found


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until *condition* holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.02)


def state_of(url: str) -> httpx.Response | None:
    """Return the answer of ``/readyz``, or None where nobody answers."""
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/readyz", timeout=5)
    return None


def status_of(answer: bytes) -> int:
    """Return the status of a raw answer."""
    return int(answer.split(b" ", 2)[1])


def body_of(answer: bytes) -> dict[str, object]:
    """Return the JSON of a raw answer."""
    found: dict[str, object] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


def assert_refused(started: ApiProcess, words: str) -> None:
    """Check that an API process ended at once, with the status of wrong usage and one line that says *words*."""
    try:
        assert started.process.wait(20) == 2
        assert words in started.log
        assert started.log.count("\n") == 1
    finally:
        started.end()
