"""Requests that are large, slow, or no HTTP: refused or given up, while others are served."""

from __future__ import annotations

import contextlib
import socket

import httpx
import pytest

from tests.support.api_server import ApiProcess, body_of, connected, exchanged, received, status_of

pytestmark = pytest.mark.processes


def test_a_header_that_is_too_large_is_refused(server: ApiProcess) -> None:
    answer = exchanged(server.port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000)

    assert status_of(answer) == 400


def test_a_whole_header_that_is_too_large_is_a_problem(server: ApiProcess) -> None:
    answer = exchanged(server.port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 17_000 + b"\r\n\r\n")

    assert status_of(answer) == 431
    assert body_of(answer)["title"] == "Request Header Fields Too Large"


def test_a_path_that_is_too_long_is_refused(server: ApiProcess) -> None:
    assert status_of(exchanged(server.port, b"GET /" + b"x" * 70_000)) == 400


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(server: ApiProcess, data: bytes) -> None:
    answer = exchanged(server.port, data + b"\r\n\r\n")

    assert status_of(answer) == 400


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_a_body_that_is_large_is_refused_before_it_comes(server: ApiProcess, method: bytes) -> None:
    head = method + b" /snapshot HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n"
    answer = exchanged(server.port, head + b"x" * 100_000)

    assert status_of(answer) == 413
    assert b"connection: close" in answer.lower()


def test_a_body_without_an_end_is_refused(server: ApiProcess) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = exchanged(server.port, head + b"10000\r\n" + b"x" * 65536)

    assert status_of(answer) == 413


def test_two_lengths_are_no_http(server: ApiProcess) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"

    assert status_of(exchanged(server.port, head)) == 400


def test_a_small_body_is_ignored(server: ApiProcess) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"

    assert status_of(exchanged(server.port, head)) == 200


def test_the_server_still_answers_while_slow_clients_hold_connections(server: ApiProcess) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connected(server.port)) for _ in range(100)]
        for one in slow:
            one.sendall(b"GET /healthz HT")

        assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_a_connection_that_says_nothing_does_not_keep_the_port_busy(server: ApiProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as silent:
        silent.shutdown(socket.SHUT_WR)

        assert received(silent) == b""
