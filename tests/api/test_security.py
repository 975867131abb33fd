"""What must not work: other hosts, other origins, tricks with paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shm_monitor_api import ApiConfig, create_app
from tests.support.api_server import (
    TOKEN,
    ApiProcess,
    Asked,
    asked,
    connected,
    exchanged,
    received,
    status_of,
)

if TYPE_CHECKING:
    pass


# Hosts: DNS rebinding makes a browser send a request for the attacker's name to our address.


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8909",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        "10.0.0.1",
        "[",
        "[127.0.0.1]evil",
        "[127.0.0.1]",
        "[::1]evil",
        "[::1]:80evil",
        "127.0.0.1:evil",
        "::1",
        "localhost:80:80",
    ],
)
@pytest.mark.parametrize("path", ["/snapshot", "/healthz", "/", "/nope"])
def test_the_name_of_another_host_is_refused(ask: Asked, path: str, host: str) -> None:
    response = ask(path, headers={"host": host})

    assert response.status_code == 421
    assert response.headers["content-type"] == "application/problem+json"
    assert "cpu" not in response.text


@pytest.mark.parametrize("host", ["localhost:8909", "LOCALHOST", "127.0.0.1", "[::1]:80", "localhost.", "127.0.0.1:1"])
def test_the_names_of_this_machine_are_served(ask: Asked, host: str) -> None:
    assert ask("/snapshot", headers={"host": host}).status_code == 200


def test_a_name_that_was_allowed_is_served(name: str) -> None:
    ask = asked(name, allowed_hosts=("gpu-7.cluster",))

    assert ask("/healthz", headers={"host": "gpu-7.cluster:8909"}).status_code == 200
    assert ask("/healthz", headers={"host": "gpu-8.cluster:8909"}).status_code == 421


def test_the_address_itself_is_served_to_who_has_the_token(name: str) -> None:
    ask = Asked(create_app(ApiConfig(name=name, token=TOKEN)), base_url="http://192.0.2.7:8909")

    assert ask("/healthz").status_code == 200
    assert ask("/healthz", headers={"host": "192.0.2.8:8909"}).status_code == 421


@pytest.mark.parametrize("hosts", [(b"localhost", b"evil.example"), (b"evil.example", b"localhost")])
def test_two_host_headers_are_refused(server: ApiProcess, hosts: tuple[bytes, bytes]) -> None:
    answer = exchanged(server.port, b"GET /healthz HTTP/1.1\r\nHost: %b\r\nHost: %b\r\n\r\n" % hosts)

    assert status_of(answer) == 400


def test_two_tokens_are_refused(server: ApiProcess) -> None:
    answer = exchanged(
        server.port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n"
    )

    assert status_of(answer) == 400


def test_a_whole_head_that_is_too_large_is_refused(server: ApiProcess) -> None:
    """In one piece, so that no parser waits for the rest of it."""
    lines = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 90) for number in range(250))
    answer = exchanged(server.port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n")

    assert status_of(answer) == 431


def test_many_requests_at_once_are_answered_in_their_order(server: ApiProcess) -> None:
    paths = [b"/healthz", b"/nope", b"/healthz", b"/readyz"] * 10
    requests = b"".join(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path for path in paths)
    answer = exchanged(server.port, requests + b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    statuses = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]

    assert statuses == [200, 404, 200, 503] * 10 + [200]


@pytest.mark.parametrize("path", ["/healthz", "/docs", "/nope"])
def test_the_answer_to_head_comes_at_once_and_without_a_body(server: ApiProcess, path: str) -> None:
    with connected(server.port) as connection:
        for _ in range(2):
            connection.sendall(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert received(connection, until=b"\r\n\r\n").endswith(b"\r\n\r\n")


# Origins


def test_a_page_of_another_origin_may_not_read(ask: Asked) -> None:
    response = ask("/snapshot", headers={"origin": "https://evil.example"})

    assert response.status_code == 403
    assert not [key for key in response.headers if key.startswith("access-control-")]


@pytest.mark.parametrize("origin", ["http://localhost:3000", "null", "http://127.0.0.1", "http://127.0.0.1:8909.evil"])
def test_another_port_of_this_machine_is_another_origin(ask: Asked, origin: str) -> None:
    assert ask("/snapshot", headers={"origin": origin}).status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_elsewhere_may_not_embed(ask: Asked, site: str) -> None:
    assert ask("/snapshot", headers={"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}).status_code == 403
    assert ask("/events", headers={"sec-fetch-site": site, "sec-fetch-mode": "cors"}).status_code == 403


def test_a_link_elsewhere_may_lead_to_a_page_of_ours(ask: Asked) -> None:
    assert ask("/", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}).status_code == 200
    assert ask("/snapshot", headers={"origin": "http://127.0.0.1:8909"}).status_code == 200


def test_a_preflight_gets_no_permission(ask: Asked) -> None:
    headers = {"origin": "https://evil.example", "access-control-request-method": "GET"}
    response = ask("/snapshot", "OPTIONS", headers=headers)

    assert response.status_code == 403
    assert not [key for key in response.headers if key.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/snapshot", "/metrics", "/", "/nope", "/docs"])
def test_every_answer_forbids_to_guess_types_and_to_embed(ask: Asked, path: str) -> None:
    headers = ask(path).headers

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"


# Paths


@pytest.mark.parametrize(
    "target",
    [
        "/../etc/passwd",
        "/docs/../../../../etc/passwd",
        "/docs/%2e%2e/%2e%2e/settings.py",
        "/docs/..%2f..%2fsettings.py",
        "/static/dashboard.html",
        "/docs//etc/passwd",
        "//etc/passwd",
        "/docs/swagger-ui.css%00.txt",
        "/docs/swagger-ui.css/../../__init__.py",
        "/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    ],
)
def test_no_path_leads_out(server: ApiProcess, target: str) -> None:
    answer = exchanged(server.port, f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())

    assert status_of(answer) in {400, 404}
    assert b"root:" not in answer


@pytest.mark.parametrize("path", ["/config", "/args", "/environ", "/env", "/api/4/config", "/.env", "/token", "/redoc"])
def test_nothing_echoes_configuration(ask: Asked, path: str) -> None:
    assert ask(path).status_code == 404


def test_no_answer_has_the_token_the_environment_or_command_lines(
    ask_with_token: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_SOMEBODY", "hunter2-hunter2")
    for path in ("/snapshot", "/schema", "/metrics", "/openapi.json", "/readyz", "/resources/prune", "/", "/docs"):
        text = ask_with_token(path, headers={"authorization": f"Bearer {TOKEN}"}).text
        assert TOKEN not in text
        assert "hunter2" not in text
        assert "pytest" not in text


def test_an_upgrade_to_a_websocket_is_not_understood(server: ApiProcess) -> None:
    answer = exchanged(
        server.port,
        b"GET /events HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAccept: text/html\r\n\r\n",
    )

    assert status_of(answer) in {400, 404, 406}
