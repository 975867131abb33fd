"""`shm-monitor open`: the dashboard in a browser where there is one, its address where there is none."""

from __future__ import annotations

import http.server
import threading
from typing import TYPE_CHECKING

import pytest

from shm_monitor.cli import main
from shm_monitor.cli.open import reached
from tests.support.api_server import ApiProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "SSH_CONNECTION")


@pytest.fixture(autouse=True)
def _no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in SCREENS:
        monkeypatch.delenv(key, raising=False)


@pytest.fixture(scope="module")
def api() -> Iterator[ApiProcess]:
    """An API of a sampler that does not run: its dashboard says so."""
    with ApiProcess("--name", "nobody-runs-this", "--bind", "127.0.0.1:0") as made:
        yield made


@pytest.mark.processes
def test_without_a_browser_the_address_is_printed(api: ApiProcess, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["open", "--url", api.url]) == 0

    out, err = capsys.readouterr()
    assert out == f"{api.url}/\n"
    assert "no browser here" in err


@pytest.mark.processes
def test_over_ssh_it_says_how_to_come_to_it(
    api: ApiProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 1 10.0.0.2 22")
    assert main(["open", "--url", api.url]) == 0
    assert f"ssh -L {api.port}:127.0.0.1:{api.port} " in capsys.readouterr().err


@pytest.mark.processes
def test_the_browser_that_is_set_gets_the_address(
    api: ApiProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A program in $BROWSER, as Python's own webbrowser starts it."""
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n', encoding="utf-8")
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    monkeypatch.setattr("webbrowser._tryorder", None)  # read $BROWSER again
    monkeypatch.setenv("SHM_MONITOR_BIND", f"127.0.0.1:{api.port}")

    assert main(["open"]) == 0

    assert seen.read_text(encoding="utf-8") == f"{api.url}/\n"
    assert capsys.readouterr().err == ""


def test_where_no_api_answers_it_says_what_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["open", "--url", "http://127.0.0.1:9"]) == 3

    out, err = capsys.readouterr()
    assert out == ""
    assert "try: shm-monitor run" in err


def test_something_else_on_the_port_is_no_dashboard(capsys: pytest.CaptureFixture[str]) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert main(["open", "--url", f"http://127.0.0.1:{server.server_port}"]) == 3
        thread.join()

    assert "something else answers there" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["localhost:8909", "ftp://x", "http://"])
def test_what_is_no_address_is_usage(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["open", "--url", url]) == 2
    assert "http://HOST:PORT" in capsys.readouterr().err


def test_who_listens_everywhere_is_reached_here() -> None:
    assert reached("http://0.0.0.0:8909") == "http://127.0.0.1:8909"
    assert reached("http://[::]:1") == "http://[::1]:1"
    assert reached("http://node7:8909") == "http://node7:8909"
