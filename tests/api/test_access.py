"""Who is told: who has the token, and where the API may listen without one."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

import shm_monitor as sm
from shm_monitor_api import ApiConfig, create_app
from shm_monitor_api.__main__ import settings
from shm_monitor_api.guard import is_local, is_loopback
from shm_monitor_api.pages import dashboard
from shm_monitor_api.server import Address, check_exposure
from tests.support.api_server import EVERY_KIND, TOKEN, ApiProcess, Asked, assert_refused

if TYPE_CHECKING:
    from pathlib import Path


# Tokens


@pytest.mark.parametrize("path", [path for path in EVERY_KIND if path != "/"])
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


@pytest.mark.processes
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
