"""The command: data on stdout, words on stderr, exit statuses that scripts can rely on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

import shm_monitor as sm
from shm_monitor.cli import api, main
from shm_monitor.schema import Level
from shm_monitor.segment import names
from tests.support.fake_sampler import FakeSampler
from tests.support.surroundings import child_environment, remove_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.publishing import Bench

pytestmark = pytest.mark.processes

COMMAND = [sys.executable, "-P", "-m", "shm_monitor"]


def started(*arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Start the command in a process of its own, with its output piped."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env=child_environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(*arguments: str, **settings: str) -> tuple[int, str, str]:
    """Run the command to its end; return status, stdout and stderr."""
    with started(*arguments, **settings) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def sampler() -> Iterator[str]:
    """The name of a sampler that ``shm-monitor run`` keeps alive for this module."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    process = started("run", "--name", name, "--no-view", "--no-api", "--set", "check_interval=0.2")
    try:
        deadline = time.monotonic() + 60
        while finished("check", "--name", name)[0] == 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        yield name
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
        remove_files(name)


def test_check_is_fine_on_a_calm_sampler(sampler: str) -> None:
    assert finished("check", "--name", sampler) == (0, "OK\n", "")


def test_check_speaks_json(sampler: str) -> None:
    status, out, _ = finished("check", "--name", sampler, "--json")

    found = json.loads(out)
    assert (status, found["should_prune"], found["level"], found["reasons"]) == (0, False, "ok", [])


def test_check_without_a_sampler_says_how_to_start_one(name: str) -> None:
    status, out, err = finished("check", "--name", name)

    assert (status, out) == (3, "")
    assert f"shm-monitor run --name {name}" in err


@pytest.fixture
def pressed(name: str) -> Iterator[FakeSampler]:
    """A sampler whose memory is at 98 % of its capacity, and nothing else."""
    made = FakeSampler(name)
    made.feed(50.0, 98.0)
    yield made
    made.close()


def test_check_is_one_when_work_should_be_shed_and_says_why(
    pressed: FakeSampler, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--name", name]) == 1
    assert capsys.readouterr().out.startswith("CRITICAL\n  memory of the host: 98 of 100 B, capacity (critical)")


def test_check_watches_only_what_it_is_told(pressed: FakeSampler, name: str) -> None:
    assert main(["check", "--name", name, "--watch", "cpu"]) == 0
    assert main(["check", "--name", name, "--watch", "cpu", "--watch", "memory"]) == 1


def test_check_on_a_limit_that_does_not_exist_lists_those_that_do(
    pressed: FakeSampler, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--name", name, "--watch", "gpu:7"]) == 2
    assert "memory, cpu" in capsys.readouterr().err


def test_check_says_three_for_a_sampler_that_is_dead(name: str, make_bench: Callable[..., Bench]) -> None:
    make_bench(name, dead=True).publish(Level.PRUNE)

    assert main(["check", "--name", name]) == 3


def test_snapshot_as_json_and_messagepack_is_the_same_data(sampler: str) -> None:
    status, out, _ = finished("snapshot", "--name", sampler, "--json")
    packed = subprocess.run(
        [*COMMAND, "snapshot", "--name", sampler, "--msgpack"], env=child_environment(), capture_output=True, check=True
    ).stdout

    assert status == 0
    assert json.loads(out).keys() == msgspec.msgpack.decode(packed).keys()
    assert json.loads(out)["memory"]["usage_bytes"] > 0


def test_snapshot_prints_a_table_for_people(sampler: str) -> None:
    status, out, _ = finished("snapshot", "--name", sampler)

    assert status == 0
    assert "memory" in out
    assert "\x1b" not in out


def test_status_names_state_and_collectors(sampler: str) -> None:
    status, out, _ = finished("status", "--name", sampler, "--json")
    found = json.loads(out)

    assert (status, found["state"], found["restarts"]) == (0, "live", 0)
    assert found["collectors"]["memory"]["last_ok_age_seconds"] < 10


def test_schema_shows_unit_and_source_of_every_metric(sampler: str) -> None:
    status, out, _ = finished("schema", "--name", sampler, "--json")

    assert status == 0
    assert all(row["unit"] and row["help"] for row in json.loads(out))


def test_list_shows_the_sampler_and_clean_leaves_it_alone(sampler: str) -> None:
    assert sampler in finished("list")[1]
    assert sampler not in finished("clean")[1]
    assert finished("check", "--name", sampler)[0] == 0


def test_output_that_nobody_reads_is_no_error(sampler: str) -> None:
    line = f"{' '.join(COMMAND)} schema --name {sampler} | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], env=child_environment(), capture_output=True, text=True, check=False
    )

    assert done.stderr == ""


def test_a_second_sampler_of_the_name_says_who_holds_it(sampler: str) -> None:
    status, _, err = finished("run", "--name", sampler, "--no-view", "--no-api")

    assert status == 2
    assert "already running (process " in err


def test_run_with_a_command_passes_its_name_and_returns_its_status(name: str) -> None:
    script = f'test "$SHM_MONITOR_NAME" = {name} && {" ".join(COMMAND)} check >/dev/null && exit 7'

    assert finished("run", "--name", name, "--", "sh", "-c", script)[0] == 7
    assert not os.path.exists(names.object_path(name))


def test_the_kernel_takes_the_processes_of_a_command_before_the_sampler(name: str) -> None:
    """Their oom_score_adj is 500 higher, and that of the sampler is what it was."""
    ours = int(Path("/proc/self/oom_score_adj").read_text())
    script = "cat /proc/self/oom_score_adj; cat /proc/$PPID/oom_score_adj"

    assert finished("run", "--name", name, "--", "sh", "-c", script)[1].split() == [
        str(min(ours + 500, 1000)),
        str(ours),
    ]
    assert finished("run", "--name", name, "--no-oom-score", "--", "sh", "-c", script)[1].split() == [str(ours)] * 2


def test_run_with_a_command_that_a_signal_ends_returns_128_and_the_signal(name: str) -> None:
    assert finished("run", "--name", name, "--", "sh", "-c", "kill -KILL $$")[0] == 128 + signal.SIGKILL


def test_run_with_a_command_that_does_not_exist_is_127(name: str) -> None:
    status, _, err = finished("run", "--name", name, "--", "no-such-command")

    assert status == 127
    assert "no-such-command" in err


def test_run_forwards_signals_to_the_command(name: str, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"trap 'exit 9' TERM; touch {ready}; while :; do sleep 0.05; done"
    process = started("run", "--name", name, "--", "sh", "-c", script)
    deadline = time.monotonic() + 60
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)

    assert process.returncode == 9


def test_run_tells_systemd_that_it_is_ready_and_alive(name: str, tmp_path: Path) -> None:
    """The protocol of sd_notify(3), over a real socket."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path)
        notify.settimeout(30)
        process = started("run", "--name", name, "--no-view", "--no-api", NOTIFY_SOCKET=path, WATCHDOG_USEC="400000")
        try:
            assert notify.recv(256).startswith(b"READY=1")
            process.send_signal(signal.SIGTERM)
            assert notify.recv(256) in {b"WATCHDOG=1", b"STOPPING=1"}
        finally:
            process.communicate(timeout=20)
    assert process.returncode == 0


def test_config_show_names_the_origin_of_each_value(tmp_path: Path) -> None:
    file = tmp_path / "my.env"
    file.write_text("CHECK_INTERVAL=0.5 # twice a second\n", encoding="utf-8")

    status, out, _ = finished(
        "config", "show", "--env-file", str(file), "--set", "forecast_horizon=2", "--json", MAX_CPU_USAGE_PERCENT="70"
    )
    found = {row["key"]: (row["value"], row["origin"]) for row in json.loads(out)}

    assert status == 0
    assert found["check_interval"][0] == 0.5
    assert "my.env" in found["check_interval"][1]
    assert "1" in found["check_interval"][1]
    assert found["max_cpu_usage_percent"] == (70.0, "environment")
    assert found["forecast_horizon"] == (2.0, "argument")
    assert found["observation_period"][1] == "default"


def test_a_setting_that_is_wrong_is_usage_and_names_the_key() -> None:
    status, out, err = finished("config", "show", SHM_MONITOR_CHECK_INTERVALL="1")

    assert (status, out) == (2, "")
    assert "SHM_MONITOR_CHECK_INTERVALL" in err
    assert "SHM_MONITOR_CHECK_INTERVAL" in err


def test_a_name_that_could_be_a_path_is_refused() -> None:
    assert finished("check", "--name", "../etc/passwd")[0] == 2


def test_no_command_is_usage() -> None:
    assert finished()[0] == 2


def test_the_version_is_the_package_s() -> None:
    import shm_monitor

    assert finished("--version")[1] == f"shm-monitor {shm_monitor.__version__}\n"


def test_a_hangup_reloads_the_configuration_and_keeps_the_history(name: str, tmp_path: Path) -> None:
    """A reader that was attached before sees the new limit, in the same segment, without attaching again."""
    file = tmp_path / "my.env"
    file.write_text("CHECK_INTERVAL=0.1\nOBSERVATION_PERIOD=2\n", encoding="utf-8")
    process = started("run", "--name", name, "--no-view", "--no-api", "--env-file", str(file))
    try:
        with sm.attach(name, timeout=30.0) as reader:
            before = reader.view().identity, reader.snapshot().sequence
            assert cpu_limit(reader) is None
            file.write_text("CHECK_INTERVAL=0.1\nOBSERVATION_PERIOD=2\nMAX_CPU_USAGE_PERCENT=70\n", encoding="utf-8")
            process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 60
            while cpu_limit(reader) is None and time.monotonic() < deadline:
                time.sleep(0.05)

            assert cpu_limit(reader) == 70.0
            assert reader.view().identity == before[0]
            assert reader.snapshot().sequence > before[1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_reload_of_a_wrong_configuration_changes_nothing(name: str, tmp_path: Path) -> None:
    file = tmp_path / "my.env"
    file.write_text("CHECK_INTERVAL=0.1\n", encoding="utf-8")
    process = started("run", "--name", name, "--no-view", "--no-api", "--env-file", str(file))
    try:
        with sm.attach(name, timeout=30.0) as reader:
            epoch = reader.snapshot().epoch
            file.write_text("CHECK_INTERVAL=never\n", encoding="utf-8")
            process.send_signal(signal.SIGHUP)
            time.sleep(1.5)
            assert reader.snapshot().epoch == epoch
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert "not reloaded: CHECK_INTERVAL" in err


def test_a_run_without_a_view_ends_when_its_terminal_is_closed(name: str) -> None:
    terminal, its_end = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "shm_monitor", "run", "--name", name, "--no-view", "--no-api"],
        stdin=its_end,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=child_environment(),
    )
    try:
        with sm.attach(name, timeout=30.0):
            process.send_signal(signal.SIGHUP)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(its_end)
        os.close(terminal)


def cpu_limit(reader: sm.Reader) -> float | None:
    return next((limit.limit_value for limit in reader.snapshot().limits if limit.limit == "cpu"), None)


def test_the_address_that_is_shown_is_the_one_that_is_served() -> None:
    server = pytest.importorskip("shm_monitor_api.server", reason="the extra api is not installed")

    assert api.DEFAULT_BIND == server.DEFAULT_BIND
    assert api.url(None, {}) == f"http://{server.DEFAULT_BIND}"
    assert api.url("127.0.0.1:1", {"SHM_MONITOR_BIND": "127.0.0.1:2"}) == "http://127.0.0.1:1"
    assert api.url(None, {"SHM_MONITOR_BIND": "127.0.0.1:2"}) == "http://127.0.0.1:2"


@pytest.mark.parametrize("verb", ["status", "snapshot", "check", "schema"])
def test_a_name_that_no_sampler_can_have_is_usage(verb: str) -> None:
    status, out, err = finished(verb, "--name", "../x")

    assert (status, out) == (2, "")
    assert "letters, digits" in err
