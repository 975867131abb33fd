"""Bounded load on a server of this machine: closed loops on a few connections, and requests at a fixed rate."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Self

from bench.stage import wait4

HOST = "127.0.0.1"
START_SECONDS = 20.0
_HEAD_END = b"\r\n\r\n"


def request(path: str, **headers: str) -> bytes:
    """Return the bytes of one GET that keeps its connection."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {HOST}", *(f"{key.replace('_', '-')}: {headers[key]}" for key in headers)]
    return "\r\n".join([*lines, "", ""]).encode()


class Connection:
    """One kept-alive connection: send a request, read exactly its answer."""

    def __init__(self, port: int) -> None:
        """Connect to *port* of this machine."""
        self.socket = socket.create_connection((HOST, port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def ask(self, data: bytes) -> bytes:
        """Return the whole answer to *data*."""
        self.socket.sendall(data)
        while True:
            answer = self.answer()
            if answer:
                return answer

    def answer(self) -> bytes:
        """Read once; return the answer if it is whole now, else nothing."""
        got = self.socket.recv(1 << 18)
        if not got:
            raise ConnectionError("the server closed the connection")
        self._buffer += got
        end = self._buffer.find(_HEAD_END)
        if end < 0 or len(self._buffer) < end + len(_HEAD_END) + _body_length(self._buffer[: end + 2]):
            return b""
        answer, self._buffer = self._buffer, b""
        return answer


def _body_length(head: bytes) -> int:
    at = head.lower().find(b"\r\ncontent-length:")
    return int(head[at + 17 : head.index(b"\r\n", at + 2)]) if at >= 0 else 0


def throughput(port: int, data: bytes, *, seconds: float, connections: int = 4) -> float:
    """Return answers per second while *connections* each ask again as soon as they are answered."""
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for _ in range(connections):
            one = Connection(port)
            stack.callback(one.socket.close)
            selector.register(one.socket, selectors.EVENT_READ, one)
            one.socket.sendall(data)
        count, began = 0, time.perf_counter()
        end = began + seconds
        while time.perf_counter() < end:
            for key, _ in selector.select(timeout=1):
                if key.data.answer():
                    count += 1
                    key.data.socket.sendall(data)
        return count / (time.perf_counter() - began)


def latencies(port: int, data: bytes, *, per_second: float, seconds: float) -> list[float]:
    """Return the seconds of each answer to requests that leave at a fixed rate, late or not.

    A request that leaves late because the one before it was slow counts from when it should have left: otherwise a
    stall would hide itself (coordinated omission).
    """
    connection = Connection(port)
    with contextlib.closing(connection.socket):
        seen = []
        began = time.perf_counter()
        for turn in range(int(per_second * seconds)):
            due = began + turn / per_second
            while (left := due - time.perf_counter()) > 0:
                if left > 0.0005:
                    time.sleep(left - 0.0003)
            connection.ask(data)
            seen.append(time.perf_counter() - due)
        return seen


class Server:
    """One server process on a free port of this machine. Ends it when left as a context manager."""

    def __init__(self, command: Sequence[str], port: int, environ: dict[str, str] | None = None) -> None:
        """Start *command*, which listens on *port*, and wait until it does."""
        self.port = port
        paths = [path for path in sys.path if path]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environ or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.end()
                raise ConnectionError(f"{command} does not listen on port {port}")
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """The pid of the server."""
        return self._process.pid

    def cpu_seconds(self) -> float:
        """Return the CPU that it has used. Source: clock_getcpuclockid(3)."""
        return time.clock_gettime(~self.pid << 3 | 2)

    def end(self) -> None:
        """Stop it if it still runs."""
        if self._process.returncode is None:
            self._process.terminate()
            wait4(self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """Return a port of this machine that nobody listens on now."""
    with socket.create_server((HOST, 0)) as taken:
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def api_server(name: str, *options: str) -> Iterator[Server]:
    """Have the API of the sampler *name* serve."""
    port = free_port()
    command = [sys.executable, "-m", "shm_monitor_api", "--name", name, "--bind", f"{HOST}:{port}", *options]
    with Server(command, port) as server:
        yield server


@contextlib.contextmanager
def constant_server() -> Iterator[Server]:
    """Have a FastAPI route serve constant bytes."""
    port = free_port()
    options = ["--host", HOST, "--port", str(port), "--no-access-log", "--log-level", "error"]
    with Server([sys.executable, "-m", "uvicorn", "bench.api_constant:app", *options], port) as server:
        yield server
