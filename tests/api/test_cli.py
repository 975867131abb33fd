"""The commands: the API by itself and beside a sampler, and what becomes of the one when the other ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

import shm_monitor as sm
from shm_monitor.cli import api, main
from shm_monitor.errors import install_command
from shm_monitor.supervision.api_keeper import ApiKeeper
from shm_monitor_api.__main__ import main as api_main
from shm_monitor_api.__main__ import settings
from shm_monitor_api.server import DEFAULT_BIND
from tests.support.api_server import TOKEN, ApiProcess, assert_refused, eventually, state_of
from tests.support.light_sampler import LightSamplers, end
from tests.support.surroundings import UNMEASURED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLEEPS = [sys.executable, "-c", "import sys; sys.stdin.read()"]


@pytest.fixture
def beside(name: str) -> Iterator[ApiProcess]:
    """``shm-monitor run``: a sampler with the API beside it."""
    with ApiProcess(
        "run",
        "--name",
        name,
        "--no-view",
        "--set",
        "check_interval=0.2",
        "--bind",
        "127.0.0.1:0",
        command=("shm_monitor",),
        environ=UNMEASURED,  # what measures coverage writes while the API is asked to end for the second time
    ) as started:
        yield started
        started.stop()


def children_of(pid: int) -> dict[str, int]:
    """Return the pids of the children of *pid* by the module that they run."""
    found = {}
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):
            words = child.cmdline()
            if "-m" in words:
                found[words[words.index("-m") + 1]] = child.pid
    return found


# Settings


def test_the_command_line_wins_over_the_environment() -> None:
    environ = {"SHM_MONITOR_NAME": "a", "SHM_MONITOR_BIND": "127.0.0.1:1", "SHM_MONITOR_ALLOWED_HOSTS": "one, two"}
    config, serving = settings(["--name", "b", "--bind", "[::1]:2", "--allow-host", "three"], environ)

    assert (config.name, str(serving.address)) == ("b", "[::1]:2")
    assert config.allowed_hosts == ("one", "two", "three")
    assert settings([], environ)[0].name == "a"
    assert str(settings([], environ)[1].address) == "127.0.0.1:1"
    assert str(settings([], {})[1].address) == DEFAULT_BIND == "127.0.0.1:8909"


def test_the_env_file_speaks_to_the_api_and_the_environment_wins(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(f"SHM_MONITOR_TOKEN={TOKEN}\nSHM_MONITOR_BIND=127.0.0.1:1\nMAX_MEMORY_USAGE_MB=5\nOTHER=x\n")
    found = api.environment(path, {"SHM_MONITOR_BIND": "127.0.0.1:2"})

    assert (found["SHM_MONITOR_TOKEN"], found["SHM_MONITOR_BIND"]) == (TOKEN, "127.0.0.1:2")
    assert not {"MAX_MEMORY_USAGE_MB", "OTHER"} & set(found)


def test_a_file_that_nobody_named_says_no_more_than_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who is served is not for a file to say that happens to lie here."""
    serving = dict.fromkeys(("BIND", "TOKEN", "TOKEN_FILE", "ALLOWED_HOSTS"), "hunter2")
    lines = [*(f"SHM_MONITOR_{key}={text}" for key, text in serving.items()), "NAME=training"]
    (tmp_path / ".env").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)

    found = api.environment(None, {})
    assert {key: found[key] for key in found if key.startswith("SHM_MONITOR_")} == {"SHM_MONITOR_NAME": "training"}
    assert caplog.text.count("is left out: who is served") == 4
    assert "SHM_MONITOR_TOKEN (from " in caplog.text
    assert "hunter2" not in caplog.text
    assert api.environment(".env", {})["SHM_MONITOR_TOKEN"] == "hunter2"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8-sig", "utf-16"])
def test_a_token_is_read_as_the_settings_are(tmp_path: Path, encoding: str) -> None:
    file, env = tmp_path / "token", tmp_path / "api.env"
    file.write_bytes(f"{TOKEN}\r\n".encode(encoding))
    env.write_bytes(f'SHM_MONITOR_TOKEN="{TOKEN}"  # ours\r\n'.encode(encoding))

    assert settings(["--token-file", str(file)], {})[0].token == TOKEN
    assert settings([], api.environment(env, {}))[0].token == TOKEN
    assert settings([], {"SHM_MONITOR_TOKEN": f"'{TOKEN}'"})[0].token == TOKEN, "docker --env-file keeps quotes"


def test_a_token_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "token").open("wb") as file:
        file.truncate(2**42)
    with pytest.raises(sm.ConfigError, match="more than 64 KiB"):
        settings(["--token-file", str(tmp_path / "token")], {})


def test_a_token_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN, encoding="utf-8")
    file.chmod(0o666)

    with pytest.raises(sm.ConfigError, match=r"nobody else can write: everybody may write it \(its mode is 0666\)"):
        settings(["--token-file", str(file)], {})
    with pytest.raises(sm.ConfigError, match="nobody else can write"):
        settings([], {"SHM_MONITOR_TOKEN_FILE": str(file)})


def test_half_of_tls_is_refused() -> None:
    with pytest.raises(sm.ConfigError, match="go together"):
        settings(["--tls-cert", "cert.pem"], {})


# The API by itself


@pytest.mark.processes
def test_the_verb_becomes_the_api_and_its_options_are_its_own(name: str) -> None:
    with ApiProcess("api", "--name", name, "--bind", "127.0.0.1:0", command=("shm_monitor",)) as started:
        response = state_of(started.url)
        assert response is not None
        assert response.status_code == 503
        assert started.stop() == 0


@pytest.mark.slow
def test_its_help_is_that_of_the_api() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "shm_monitor", "api", "--help"], capture_output=True, text=True, check=True
    )

    assert "--token-file" in done.stdout
    assert "usage: shm-monitor api" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--bind", "0.0.0.0:0"), "without a token"),
        (("--bind", "nonsense"), "HOST:PORT"),
        (("--bind", "192.0.2.1:0", "--insecure"), "Cannot assign"),
        (("--name", "../x"), "letters"),
        (("--token-file", "/nowhere"), "readable file"),
        (("--nonsense",), "unrecognized"),
    ],
)
def test_what_cannot_be_obeyed_is_wrong_usage(
    options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        status = api_main(options)
    except SystemExit as wrong_option:
        status = int(str(wrong_option.code))
    finally:
        signal.signal(signal.SIGTERM, before)

    assert status == 2
    assert words in capsys.readouterr().err


def test_without_its_packages_the_verb_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(api, "PACKAGES", ("fastapi", "no_such_package_at_all"))

    assert main(["api"]) == 2
    assert install_command("api") in capsys.readouterr().err


def test_other_verbs_still_refuse_what_they_do_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["status", "--nonsense"])

    assert caught.value.code == 2
    assert "unrecognized arguments: --nonsense" in capsys.readouterr().err


@pytest.mark.processes
def test_a_port_that_is_taken_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = ApiProcess("--bind", f"127.0.0.1:{port}")
        try:
            assert failed.process.wait(20) == 2
            assert failed.log.count("\n") == 1
            assert f"127.0.0.1:{port} is taken by " in failed.log
            assert f"(pid {os.getpid()}); try: " in failed.log
        finally:
            failed.end()


@pytest.mark.processes
def test_a_port_that_another_api_has_is_a_line_that_names_its_sampler(light: LightSamplers, name: str) -> None:
    sampler = light.one(name, interval_seconds=0.05)
    with ApiProcess("--name", name, "--bind", "127.0.0.1:0") as other:
        eventually(lambda: httpx.get(f"{other.url}/resources/all").headers.get("shm-monitor-name") == name)
        who = f"shm-monitor api (pid {other.process.pid}) with the API of the sampler '{name}'"
        assert_refused(ApiProcess("--bind", f"127.0.0.1:{other.port}"), f"is taken by {who}; try: ")
    end(sampler.pid)


@pytest.mark.processes
def test_it_ends_when_its_parent_does(name: str) -> None:
    with ApiProcess("--name", name, "--bind", "127.0.0.1:0", "--stop-at-eof") as started:
        assert started.process.stdin is not None
        started.process.stdin.close()
        assert started.process.wait(10) == 0


# Its log


@pytest.mark.processes
def test_requests_are_not_logged_unless_asked_for(name: str) -> None:
    with ApiProcess("--name", name, "--bind", "127.0.0.1:0") as started:
        httpx.get(f"{started.url}/healthz")
        started.stop()

    assert started.log.count("\n") == 1


@pytest.mark.processes
def test_the_log_speaks_json(name: str) -> None:
    options = ("--name", name, "--bind", "127.0.0.1:0", "--access-log", "--log-format", "json")
    with ApiProcess(*options, environ={"SHM_MONITOR_TOKEN": TOKEN}) as started:
        httpx.get(f"{started.url}/snapshot?token={TOKEN}", headers={"authorization": "Bearer nonsense"})
        started.stop()
    lines = [json.loads(line) for line in started.log.splitlines()]

    assert lines[0]["message"].startswith("listening on http://127.0.0.1:")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", lines[0]["time"])
    asked = next(line for line in lines if "path" in line)
    assert (asked["method"], asked["path"], asked["status"]) == ("GET", "/snapshot?...", 401)
    assert TOKEN not in started.log


# Beside a sampler


@pytest.mark.processes
def test_run_serves_what_it_samples_and_stops_both(beside: ApiProcess, name: str) -> None:
    eventually(lambda: httpx.get(f"{beside.url}/resources/all").json()["cpu_percent"] is not None)
    assert httpx.get(f"{beside.url}/snapshot").json()["name"] == name
    pids = children_of(beside.process.pid)

    assert beside.stop() == 0
    assert set(pids) == {"shm_monitor.sampler", "shm_monitor_api"}
    assert not [pid for pid in pids.values() if os.path.exists(f"/proc/{pid}")]
    assert "Traceback" not in beside.log


@pytest.mark.processes
def test_a_crash_of_the_api_restarts_the_api_alone(beside: ApiProcess) -> None:
    before = children_of(beside.process.pid)
    os.kill(before["shm_monitor_api"], signal.SIGKILL)
    eventually(lambda: beside.log.count("listening on") == 2)
    after = children_of(beside.process.pid)

    assert after["shm_monitor.sampler"] == before["shm_monitor.sampler"]
    assert after["shm_monitor_api"] != before["shm_monitor_api"]
    assert "the API ended with status -9; starting it again in 1 s" in beside.log


@pytest.mark.slow
def test_a_killed_run_leaves_no_api_behind(beside: ApiProcess) -> None:
    pid = children_of(beside.process.pid)["shm_monitor_api"]
    beside.process.kill()

    eventually(lambda: not os.path.exists(f"/proc/{pid}"))


@pytest.mark.processes
def test_a_taken_port_does_not_stop_the_sampler(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        options = ("run", "--name", name, "--no-view", "--bind", bind)
        started = ApiProcess(*options, command=("shm_monitor",), until=("is taken",))
        try:
            time.sleep(1.0)  # long enough for a second try, which there must not be
            assert started.log.count("is taken") == 1
            assert sm.attach(name).status().state == "live"
            assert started.stop() == 0
        finally:
            started.end()


@pytest.mark.slow
@pytest.mark.parametrize("installed", [True, False])
def test_run_goes_on_without_the_api(name: str, *, installed: bool) -> None:
    """Because nobody wants it, or because it is not installed, which one line says."""
    code = "import sys; from shm_monitor.cli import api, main\n"
    code += "" if installed else "api.PACKAGES = ('no_such_package_at_all',)\n"
    options = ["run", "--name", name, "--no-view", *(["--no-api"] if installed else [])]
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", f"{code}sys.exit(main({options!r}))"], stderr=subprocess.PIPE, text=True
    )
    try:
        with sm.attach(name, timeout=30):
            assert "shm_monitor_api" not in children_of(process.pid)
        process.terminate()
        _, log = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()

    assert process.returncode == 0
    assert log.count("without the REST API") == (0 if installed else 1)


@pytest.mark.slow
@pytest.mark.parametrize(("options", "serves"), [((), False), (("--bind", "127.0.0.1:0"), True)])
def test_beside_a_command_it_serves_only_where_it_is_told_to(name: str, options: tuple[str, ...], serves: bool) -> None:
    command = [sys.executable, "-P", "-m", "shm_monitor", "run", "--name", name, *options, "--", *SLEEPS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        eventually(lambda: any(child.cmdline() == SLEEPS for child in psutil.Process(process.pid).children()))
        pids = children_of(process.pid)
        process.communicate()

    assert ("shm_monitor_api" in pids) is serves
    assert process.returncode == 0
    assert not [pid for pid in pids.values() if os.path.exists(f"/proc/{pid}")]


# The keeper


@pytest.mark.processes
def test_the_keeper_waits_longer_from_crash_to_crash() -> None:
    crashes = [sys.executable, "-c", "import sys; sys.exit(1)"]
    keeper = ApiKeeper(crashes, os.environ, backoff_seconds=(0.01, 0.02, 3600.0))
    keeper.start()
    eventually(lambda: keeper.restarts == 2 and keeper.pid is None)
    keeper.stop()  # in the middle of an hour's pause, which nobody waits for

    assert keeper.restarts == 2


@pytest.mark.processes
def test_the_keeper_does_not_insist_on_what_was_refused() -> None:
    keeper = ApiKeeper([sys.executable, "-c", "import sys; sys.exit(2)"], os.environ, backoff_seconds=(0.01,))
    keeper.start()
    eventually(lambda: not keeper._thread.is_alive())  # it has seen the status, and does not try again
    keeper.stop()

    assert keeper.restarts == 0


@pytest.mark.slow
def test_the_keeper_kills_what_does_not_stop() -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); time.sleep(60)"
    keeper = ApiKeeper([sys.executable, "-c", code], os.environ)
    keeper.start()
    eventually(lambda: keeper.pid is not None)
    time.sleep(0.5)
    pid = keeper.pid
    keeper.stop()

    assert keeper.pid is None
    assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.slow
def test_the_keeper_leaves_what_still_computes_its_time(tmp_path: Path) -> None:
    """As an end of 0.2 s of CPU is on a machine that is busy; 2 s of CPU are more than what stands still has."""
    started, ended = tmp_path / "started", tmp_path / "ended"
    code = f"""
import pathlib, signal, time
def end(*_):
    while time.process_time() < 2.5:
        pass
    pathlib.Path({str(ended)!r}).touch()
    raise SystemExit
signal.signal(signal.SIGTERM, end)
pathlib.Path({str(started)!r}).touch()
time.sleep(60)
"""
    with ApiKeeper([sys.executable, "-c", code], os.environ):
        eventually(started.exists)

    assert ended.exists()


def test_a_keeper_that_was_stopped_before_it_began_starts_nothing() -> None:
    keeper = ApiKeeper(SLEEPS, os.environ)
    keeper.ask_to_stop()
    keeper.start()
    keeper.stop()

    assert keeper.pid is None
