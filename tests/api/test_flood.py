"""Requests that nobody waits for cost a bounded amount of memory. How fast others are served: bench/bench_api.py."""

from __future__ import annotations

import contextlib
import resource
import ssl
from typing import TYPE_CHECKING

import httpx
import pytest

from shm_monitor_api.server import FILES_KEPT, event_clients
from tests.support.api_flood import Flood, health_seconds, pipelined, resident_bytes, seen_during
from tests.support.api_server import ApiProcess, MortalSampler, connected, eventually, received
from tests.support.certificate import Certificate, made_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.processes

MORE_BYTES_MAX = 40 * 2**20
SECONDS = 2.0
FILES = 200


@pytest.fixture
def sampler(name: str) -> Iterator[MortalSampler]:
    made = MortalSampler(name)
    made.feed(*[50.0] * 20)
    yield made
    made.die()


@pytest.fixture
def server(sampler: MortalSampler, name: str) -> Iterator[ApiProcess]:
    with ApiProcess("--name", name, "--bind", "127.0.0.1:0") as started:
        yield started


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return made_certificate(tmp_path_factory.mktemp("tls"))


def assert_bounded(flood: Flood, server: ApiProcess) -> None:
    """Check that others are served during *flood*, that memory stays, and that the log does too."""
    for _ in range(10):
        health_seconds(server.port)
    before = resident_bytes(server.process.pid)
    seconds, most = seen_during(flood, server.port, server.process.pid)

    assert seconds
    assert most - before < MORE_BYTES_MAX
    assert server.log.count("\n") < 50
    assert "Traceback" not in server.log


@pytest.mark.parametrize("path", ["/snapshot", pytest.param("/docs/swagger-ui-bundle.js", marks=pytest.mark.slow)])
def test_requests_sent_ahead_and_never_read_are_bounded(server: ApiProcess, path: str) -> None:
    flood = Flood(lambda: pipelined(server.port, SECONDS, path=path))
    assert_bounded(flood, server)

    assert flood.count > 0


def test_who_sends_nonsense_does_not_fill_the_log(server: ApiProcess) -> None:
    for _ in range(100):
        with connected(server.port) as one:
            one.sendall(b"nonsense\r\n\r\n")
            assert b" 400 " in received(one)

    assert server.log.count("\n") < 20


def test_an_answer_to_a_client_that_reads_late_is_whole(server: ApiProcess) -> None:
    """Bounded is not lost: each of 300 requests sent ahead is answered, in order, once the client reads."""
    request = b"GET /snapshot HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connected(server.port) as one:
        one.sendall(request * 299 + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        answer = received(one)

    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 300


def test_a_handshake_that_failed_leaves_nothing_behind(name: str, certificate: Certificate) -> None:
    options = ("--bind", "localhost:0", "--tls-cert", certificate.cert, "--tls-key", certificate.key)
    with ApiProcess("--name", name, *options) as server:
        tls = ssl.create_default_context(cafile=certificate.cert)
        for _ in range(200):
            with connected(server.port) as one:
                one.sendall(b"GET / HTTP/1.1\r\n\r\n")
        eventually(lambda: health_seconds(server.port, tls))

        assert "Traceback" not in server.log
        assert server.log.count("\n") < 20


def test_listeners_leave_half_of_the_connections_to_others() -> None:
    assert event_clients(512, 1024) == 512
    assert event_clients(512, 100) == 50
    assert event_clients(512, 1) == 1


def test_more_connections_than_files_allow_are_refused_and_others_are_served_later(name: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, hard))  # the server inherits it
    try:
        server = ApiProcess("--name", name, "--bind", "127.0.0.1:0")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with server:
        with contextlib.ExitStack() as stack:
            for _ in range(FILES - FILES_KEPT):
                stack.enter_context(connected(server.port))
            with pytest.raises(ConnectionError, match="503"):
                health_seconds(server.port)
        eventually(lambda: httpx.get(f"{server.url}/healthz").status_code == 200)

        assert "Traceback" not in server.log
