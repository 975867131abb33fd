"""Clients of this machine's loopback that mean harm, bounded in count and time, and how the API fares."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "127.0.0.1"
CONNECTIONS = 200
AHEAD_BYTES = 250_000


def pipelined(port: int, seconds: float, *, path: str = "/snapshot", connections: int = CONNECTIONS) -> int:
    """Have *connections* send ``AHEAD_BYTES`` of requests each and read nothing; return how many bytes were taken."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    data = request * (AHEAD_BYTES // len(request))
    end, taken = time.monotonic() + seconds, 0
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for _ in range(connections):
            one = stack.enter_context(socket.create_connection((HOST, port), timeout=5))
            one.setblocking(False)  # noqa: FBT003
            selector.register(one, selectors.EVENT_WRITE, [data])
        while (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(min(left, 0.1)):
                try:
                    sent = key.fileobj.send(key.data[0])  # type: ignore[union-attr]
                except OSError:
                    sent = 0
                taken += sent
                key.data[0] = key.data[0][sent:]
                if not sent or not key.data[0]:
                    selector.unregister(key.fileobj)
            if not selector.get_map():
                time.sleep(0.05)
    return taken


class Flood:
    """A flood in the background; leaving waits for its end, which it has by itself."""

    def __init__(self, flood: Callable[[], int]) -> None:
        self.count = 0
        self._flood = flood
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def goes_on(self) -> bool:
        """Whether it still floods."""
        return self._thread.is_alive()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _run(self) -> None:
        self.count = self._flood()


def health_seconds(port: int, tls: ssl.SSLContext | None = None) -> float:
    """Return how long a new connection takes to get the answer of ``/healthz``; it must be a 200."""
    began = time.perf_counter()
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(socket.create_connection((HOST, port), timeout=10))
        if tls is not None:
            one = stack.enter_context(tls.wrap_socket(one, server_hostname="localhost"))
        one.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = one.recv(4096)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"/healthz: {answer[:60]!r}")
    return time.perf_counter() - began


def resident_bytes(pid: int) -> int:
    """Return the resident memory of process *pid*. Source: proc_pid_status(5), VmRSS."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS:"))


def seen_during(flood: Flood, port: int, pid: int, tls: ssl.SSLContext | None = None) -> tuple[list[float], int]:
    """Return the seconds of each answer of ``/healthz`` while *flood* goes on, and the most resident memory."""
    seconds, most = [], resident_bytes(pid)
    with flood:
        while flood.goes_on:
            seconds.append(health_seconds(port, tls))
            most = max(most, resident_bytes(pid))
            time.sleep(0.02)
    return seconds, most
