"""What goes wrong around a supervisor: no Python to run, an error that nobody foresaw, a sampler that is frozen."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shm_monitor.errors import InterpreterError, SamplerError
from shm_monitor.interpreter import interpreter, same_modules
from shm_monitor.segment.status import STALE
from shm_monitor.supervision.handshake import Order
from shm_monitor.supervision.heir import Heir
from shm_monitor.supervision.supervisor import Supervisor
from shm_monitor.worker.attaching import attach
from tests.support.real_sampler import fast
from tests.support.surroundings import child_environment
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

FREEZER = Path("/sys/fs/cgroup/freezer")


@pytest.fixture
def supervisor(name: str) -> Iterator[Supervisor]:
    """Make a supervisor of a sampler at 10 Hz that restarts at once."""
    made = Supervisor(Order(config=fast(name, stale_after=2.0), owner_pid=os.getpid()), backoff_seconds=(0.01,))
    yield made
    made.stop()


@pytest.fixture
def freezer() -> Iterator[Path]:
    """Make a cgroup whose processes can be frozen, as ``docker pause`` does; they are thawed whatever happens."""
    path = FREEZER / f"shm-monitor-test-{uuid.uuid4().hex[:8]}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup of the freezer (v1) can be made here: {error}")
    yield path
    (path / "freezer.state").write_text("THAWED")

    def removed() -> bool:
        with contextlib.suppress(OSError):
            path.rmdir()
        return not path.exists()

    wait_until(removed)


def freeze(freezer: Path, pid: int) -> None:
    (freezer / "cgroup.procs").write_text(str(pid))
    (freezer / "freezer.state").write_text("FROZEN")


@pytest.mark.processes
def test_a_frozen_sampler_is_stale_to_everybody_who_looks(supervisor: Supervisor, name: str, freezer: Path) -> None:
    """The kernel's SIGKILL waits until it is thawed; the age of its last turn tells before."""
    supervisor.start()
    pid = supervisor.pid
    assert pid is not None
    with attach(name, on_stale="always") as reader:
        freeze(freezer, pid)
        wait_until(lambda: reader.status().state == STALE)

        assert reader.snapshot().stale
        assert not reader.outlook().is_live


@pytest.mark.processes
def test_a_stop_does_not_wait_for_a_frozen_sampler(
    supervisor: Supervisor, freezer: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "shm_monitor")
    supervisor.start()
    pid = supervisor.pid
    assert pid is not None
    freeze(freezer, pid)
    supervisor.stop()

    assert f"process {pid} does not end: it is frozen" in caplog.text
    os.kill(pid, 0)


@pytest.mark.processes
def test_an_error_that_nobody_foresaw_is_logged_and_the_supervision_goes_on(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor.start()
    before = supervisor.pid
    calls = iter([TypeError("not foreseen")])

    def raises_once(reader: object) -> bool:
        for error in calls:
            raise error
        return False

    monkeypatch.setattr("shm_monitor.supervision.supervisor.view_of", raises_once)
    monkeypatch.setattr("shm_monitor.supervision.supervisor.state_of", raises_once)
    os.kill(before or 0, 9)
    wait_until(lambda: supervisor.restarts > 0)

    assert supervisor.pid not in {None, before}
    assert "TypeError: not foreseen" in caplog.text or "ended by signal 9" in caplog.text


def test_what_cannot_work_is_refused_at_once_with_the_reason(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for attribute, value, why in (
        ("executable", None, "does not know its own Python"),
        ("executable", "/opt/blender/blender", "which is no Python"),
        ("frozen", True, "is frozen"),
    ):
        with monkeypatch.context() as context:
            context.setattr(sys, attribute, value, raising=False)
            with pytest.raises(InterpreterError, match=f"{why}.*SHM_MONITOR_PYTHON="):
                supervisor.start()


def test_the_setting_names_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)

    assert interpreter(sys.executable) == sys.executable
    with pytest.raises(InterpreterError, match="PYTHON=/nowhere/python is no program"):
        interpreter("/nowhere/python")


@pytest.mark.processes
def test_a_sampler_killed_in_its_start_says_by_which_signal(name: str, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -9 $$\n")
    python.chmod(0o755)
    supervisor = Supervisor(Order(config=fast(name, python=str(python)), owner_pid=os.getpid()))

    with pytest.raises(SamplerError, match=r"ended by signal 9 \(Killed\) before its first sample"):
        supervisor.start()


@pytest.mark.processes
def test_a_sampler_leaves_nothing_open_that_python_would_warn_about(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONDEVMODE", "1")
    supervisor.start()
    supervisor.stop()

    assert "ResourceWarning" not in capfd.readouterr().err


@pytest.mark.processes
def test_a_supervisor_that_is_stopped_in_its_own_thread_ends(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The thread may be the one that collects the last reference to a manager."""
    made: list[Supervisor] = []

    def stop(line: str) -> None:
        made[0].stop()

    made.append(Supervisor(Order(config=fast(name), owner_pid=os.getpid()), on_event=stop))
    with contextlib.suppress(SamplerError):
        made[0].start()
    wait_until(lambda: made[0].pid is None)
    made[0].stop()

    assert "Traceback" not in caplog.text


def test_an_heir_that_is_stopped_in_its_own_thread_ends(name: str) -> None:
    heirs: list[Heir] = []
    stopped = threading.Event()

    def take_over() -> bool:
        heirs[0].stop()
        stopped.set()
        return False

    before = len(os.listdir("/proc/self/fd"))
    heirs.append(Heir(name, take_over))
    heirs[0].start()

    assert stopped.wait(60.0)
    wait_until(lambda: len(os.listdir("/proc/self/fd")) == before)


@pytest.mark.processes
def test_a_path_that_is_no_text_among_the_modules_stops_no_sampler(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path])
    supervisor.start()

    assert str(tmp_path) not in same_modules()["PYTHONPATH"].split(os.pathsep)


@pytest.mark.processes
def test_a_file_beside_the_script_does_not_stand_in_for_a_package_of_the_sampler(name: str, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('this is not numpy')\n")
    script = tmp_path / "train.py"
    script.write_text(
        "import sys; from shm_monitor import ResourceConfig, ResourceManager\n"
        "with ResourceManager(ResourceConfig(name=sys.argv[1], check_interval=0.1)) as manager:\n"
        "    print(manager.should_prune() in {True, False})\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), name], env=child_environment(), capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("True\n", "")
