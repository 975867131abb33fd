"""What must not work: other hosts, other origins, no token, large and slow requests, tricks with paths."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import time
from typing import TYPE_CHECKING

import httpx
import pytest

import shm_monitor as sm
from shm_monitor_api import ApiConfig, create_app
from shm_monitor_api.__main__ import settings
from shm_monitor_api.guard import is_local, is_loopback
from shm_monitor_api.pages import dashboard
from shm_monitor_api.server import Address, check_exposure
from tests.support.api_server import TOKEN, ApiProcess, Asked, asked, connected, exchanged, received
from tests.support.certificate import Certificate, made_certificate
from tests.support.fake_sampler import FakeSampler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVERY_PATH = ("/resources/all", "/snapshot", "/metrics", "/events", "/docs", "/", "/openapi.json", "/readyz", "/nope")


@pytest.fixture(scope="module")
def server() -> Iterator[ApiProcess]:
    """An API process without a sampler: what comes before the routes does not need one."""
    with ApiProcess("--name", "test-api-security", "--bind", "127.0.0.1:0") as started:
        yield started
        assert "Traceback" not in started.log


@pytest.fixture
def ask(name: str) -> Iterator[Asked]:
    sampler = FakeSampler(name)
    sampler.feed(50.0)
    yield asked(name)
    sampler.close()


@pytest.fixture
def ask_with_token(name: str) -> Iterator[Asked]:
    sampler = FakeSampler(name)
    sampler.feed(50.0)
    yield asked(name, token=TOKEN)
    sampler.close()


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


# Tokens


@pytest.mark.parametrize("path", [path for path in EVERY_PATH if path != "/"])
@pytest.mark.parametrize(
    "credentials",
    [
        None,
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN.upper()}",
        f"Token {TOKEN}",
        TOKEN,
        "Basic",
        "Basic !!!",
        "Basic " + base64.b64encode(f"{TOKEN}:".encode()).decode(),
        "Basic " + base64.b64encode(TOKEN.encode()).decode(),
        "Basic " + base64.b64encode(b"\xff:\xff").decode(),
    ],
)
def test_without_the_right_token_nothing_is_told(ask_with_token: Asked, path: str, credentials: str | None) -> None:
    response = ask_with_token(path, headers={} if credentials is None else {"authorization": credentials})

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="shm-monitor"'
    assert TOKEN not in response.text


@pytest.mark.parametrize(
    "credentials",
    [f"Bearer {TOKEN}", f"bearer {TOKEN}", "Basic " + base64.b64encode(f"me:{TOKEN}".encode()).decode()],
)
def test_with_the_token_everything_is_told(ask_with_token: Asked, credentials: str) -> None:
    assert ask_with_token("/snapshot", headers={"authorization": credentials}).status_code == 200


def test_health_needs_no_token(ask_with_token: Asked) -> None:
    assert ask_with_token("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/healthz/", "/%2Fhealthz", "/healthz/../snapshot", "/healthz;x", "/HEALTHZ"])
def test_what_only_looks_like_health_needs_a_token(ask_with_token: Asked, path: str) -> None:
    assert ask_with_token(path).status_code == 401


def test_a_browser_is_asked_for_the_token(ask_with_token: Asked) -> None:
    response = ask_with_token("/docs", headers={"accept": "text/html,*/*;q=0.8"})

    assert (response.status_code, response.headers["www-authenticate"]) == (401, 'Basic realm="shm-monitor"')


def test_the_dashboard_needs_no_token_and_has_nothing_of_the_sampler(ask_with_token: Asked, name: str) -> None:
    """Its script asks for the token, and for everything else with it."""
    for path in dashboard():
        response = ask_with_token(path)
        assert response.status_code == 200
        assert name not in response.text


@pytest.mark.parametrize("token", ["", "short", "123456789012345", "a token with blanks in it", "tökentökentökentöken"])
def test_a_token_that_is_short_or_cannot_be_sent_is_refused_at_the_start(token: str) -> None:
    with pytest.raises(sm.ConfigError) as caught:
        ApiConfig(token=token)

    assert not token or token not in str(caught.value)


def test_the_token_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")

    assert ApiConfig.from_environ({"SHM_MONITOR_TOKEN": TOKEN}).token == TOKEN
    assert ApiConfig.from_environ({"SHM_MONITOR_TOKEN_FILE": str(path)}).token == TOKEN
    assert ApiConfig.from_environ({}).token is None
    assert settings(["--token-file", str(path)], {"SHM_MONITOR_TOKEN_FILE": "/nowhere"})[0].token == TOKEN


@pytest.mark.parametrize(
    "environ",
    [
        {"SHM_MONITOR_TOKEN": "short"},
        {"SHM_MONITOR_TOKEN_FILE": "/nowhere/at/all"},
        {"SHM_MONITOR_TOKEN": TOKEN, "SHM_MONITOR_TOKEN_FILE": "/nowhere"},
        {"SHM_MONITOR_ALLOWED_HOSTS": "a host"},
    ],
)
def test_a_token_that_was_meant_and_cannot_be_used_stops_the_start(environ: dict[str, str]) -> None:
    with pytest.raises(sm.ConfigError):
        ApiConfig.from_environ(environ)


# Addresses


@pytest.mark.parametrize("bind", ["0.0.0.0:8909", "[::]:8909", "192.0.2.7:80", "gpu-7.cluster:8909", "[2001:db8::1]:1"])
def test_other_machines_are_not_served_without_a_token(bind: str) -> None:
    address = Address.parse(bind)

    with pytest.raises(sm.ConfigError, match="without a token"):
        check_exposure(ApiConfig(), address)
    check_exposure(ApiConfig(token=TOKEN), address)
    check_exposure(ApiConfig(insecure=True), address)


@pytest.mark.parametrize("bind", ["127.0.0.1:8909", "localhost:0", "[::1]:8909", "127.8.9.1:80"])
def test_this_machine_is_served_without_a_token(bind: str) -> None:
    check_exposure(ApiConfig(), Address.parse(bind))


@pytest.mark.parametrize("bind", ["", "8909", ":80", "127.0.0.1", "::1:80", "127.0.0.1:99999", "127.0.0.1:x", "a:-1"])
def test_an_address_that_is_none_is_refused(bind: str) -> None:
    with pytest.raises(sm.ConfigError):
        Address.parse(bind)


def test_the_refusal_is_one_line_and_the_status_of_wrong_usage() -> None:
    assert_refused(ApiProcess("--bind", "0.0.0.0:0"), "without a token")


def test_another_server_cannot_open_it_to_other_machines_either(name: str) -> None:
    """``uvicorn --host 0.0.0.0 shm_monitor_api:app``: the application sees where the connection arrived."""
    app = create_app(ApiConfig(name=name))
    response = Asked(app, base_url="http://192.0.2.7:8909")("/healthz")

    assert response.status_code == 403
    assert "SHM_MONITOR_TOKEN" in response.json()["detail"]


def test_a_server_that_does_not_say_where_a_request_arrived_gets_no_answer_for_it() -> None:
    assert not is_local(None)
    assert is_local(("/run/api.sock", None))
    assert is_local(("127.0.0.1", 8909))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:192.0.2.1", False),
        ("fe80::1%eth0", False),
        ("localhost.evil.example", False),
    ],
)
def test_loopback_is_what_cannot_be_reached_from_elsewhere(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


# Sizes and times


def test_a_header_that_is_too_large_is_refused(server: ApiProcess) -> None:
    answer = exchanged(server.port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000)

    assert status_of(answer) == 431
    assert body_of(answer)["title"] == "Request Header Fields Too Large"


def test_a_path_that_is_too_long_is_refused(server: ApiProcess) -> None:
    assert status_of(exchanged(server.port, b"GET /" + b"x" * 70_000)) == 431


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_http_is_a_problem(server: ApiProcess, data: bytes) -> None:
    answer = exchanged(server.port, data + b"\r\n\r\n")

    assert status_of(answer) == 400
    assert b"application/problem+json" in answer


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


@pytest.mark.slow
def test_a_request_that_never_ends_is_given_up(server: ApiProcess) -> None:
    """Slowloris: a header now and then keeps an idle time-out from ending it."""
    with connected(server.port, timeout=1) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        deadline = time.monotonic() + 40
        with pytest.raises(OSError):  # noqa: PT012 - reset or closed, at whichever call
            while time.monotonic() < deadline:
                connection.sendall(b"X: y\r\n")
                time.sleep(0.5)
            pytest.fail("still connected after 40 s")


@pytest.mark.slow
def test_a_body_that_dribbles_is_given_up(server: ApiProcess) -> None:
    """The answer is out, and the rest of the body would keep the connection."""
    with connected(server.port, timeout=1) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8000\r\n\r\n")
        deadline = time.monotonic() + 40
        with pytest.raises(OSError):  # noqa: PT012
            while time.monotonic() < deadline:
                connection.sendall(b"x")
                time.sleep(0.5)
            pytest.fail("still connected after 40 s")


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


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return made_certificate(tmp_path_factory.mktemp("tls"))


def test_tls_is_served_and_plain_http_is_not(certificate: Certificate) -> None:
    cert, key = certificate
    options = ("--bind", "localhost:0", "--tls-cert", cert, "--tls-key", key)
    with ApiProcess("--name", "test-api-tls", *options) as server:
        trusted = ssl.create_default_context(cafile=cert)
        response = httpx.get(f"https://localhost:{server.port}/healthz", verify=trusted)
        plain = exchanged(server.port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")

    assert response.status_code == 200
    assert b"alive" not in plain


def test_a_certificate_that_cannot_be_used_is_said_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "cert.pem"
    broken.write_text("nonsense")
    options = ("--tls-cert", str(broken), "--tls-key", str(broken))

    assert_refused(ApiProcess("--bind", "127.0.0.1:0", *options), "cannot be used")


def test_a_connection_that_says_nothing_does_not_keep_the_port_busy(server: ApiProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as silent:
        silent.shutdown(socket.SHUT_WR)

        assert received(silent) == b""
