"""What processes are called: real ones, however Python was started; never an argument of them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import zipapp
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shm_monitor.process_names import NOBODY, name_of, program_of
from tests.support import children
from tests.support.surroundings import child_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="names come from /proc"),
]

SECRET = "hunter2"
WAIT = "print('ready', flush=True); import sys; sys.stdin.read()"
FAMILY = """
import json, multiprocessing, os, sys
from multiprocessing import forkserver, resource_tracker

def wait(ready):
    ready.send(os.getppid())
    sys.stdin = open(0)
    ready.recv()

if __name__ == "__main__":
    pids = {"main": os.getpid()}
    ends = []
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        mine, its = context.Pipe()
        child = context.Process(target=wait, args=(its,), daemon=True)
        child.start()
        pids[method], pids[method + " parent"] = child.pid, mine.recv()
        ends.append(mine)
    pids["resource_tracker"] = resource_tracker._resource_tracker._pid
    print(json.dumps(pids), flush=True)
    sys.stdin.read()
    for end in ends:
        end.send(None)
"""


@contextlib.contextmanager
def running(*command: str | Path, user: int | None = None, cwd: Path | None = None) -> Iterator[tuple[int, str]]:
    """Run *command* until the block ends; hand over its pid and its first line."""
    process = subprocess.Popen(
        [*map(str, command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=child_environment(),
        text=True,
        user=user,
        cwd=cwd,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.pid, process.stdout.readline()
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=20)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def called(*command: str | Path, cwd: Path | None = None) -> str:
    """Return what the process of *command* is called, which prints a line when it runs."""
    with running(*command, cwd=cwd) as (pid, line):
        assert line == "ready\n"
        return name_of(pid).name


def test_a_script_is_called_by_its_file_without_its_arguments(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(WAIT)

    assert called(sys.executable, "-u", "-W", "error", script, "--token", SECRET) == "train.py"


def test_a_module_is_called_by_its_name(tmp_path: Path) -> None:
    package = tmp_path / "jobs"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "train.py").write_text(WAIT)

    assert called(sys.executable, "-Bm", "jobs.train", SECRET, cwd=tmp_path) == "-m jobs.train"


def test_code_of_the_command_line_is_not_shown() -> None:
    assert called(sys.executable, "-c", f"token = {SECRET!r}; {WAIT}") == "-c"


def test_a_zip_application_is_called_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__main__.py").write_text(WAIT)
    zipapp.create_archive(tmp_path / "app", tmp_path / "job.pyz", interpreter=sys.executable)

    assert called(tmp_path / "job.pyz", SECRET) == "job.pyz"
    assert called(sys.executable, tmp_path / "app", SECRET) == "app"


def test_a_console_script_is_called_by_its_command(tmp_path: Path) -> None:
    script = tmp_path / "trainer"
    script.write_text(f"#!{sys.executable}\n{WAIT}")
    script.chmod(0o755)

    assert called(script, SECRET) == "trainer"


def test_any_other_program_is_called_by_its_own_name() -> None:
    assert called("sh", "-c", "echo ready; read line", SECRET) == "sh"


def test_children_of_multiprocessing_say_whose_they_are(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(FAMILY)

    with running(sys.executable, script, SECRET) as (pid, line):
        pids = json.loads(line)
        assert pids["main"] == pid
        assert name_of(pid).name == "train.py"
        assert name_of(pids["fork"]).name == "train.py"
        assert name_of(pids["spawn"]).name == "spawn_main of train.py"
        assert name_of(pids["forkserver parent"]).name == "forkserver of train.py"
        assert name_of(pids["forkserver"]).name == "forkserver child of train.py"
        assert name_of(pids["resource_tracker"]).name == "resource_tracker of train.py"


def test_an_orphan_of_multiprocessing_is_not_called_after_who_adopted_it(tmp_path: Path) -> None:
    for pid, parent, words in (
        (1, 0, ["/sbin/init"]),
        (9, 1, ["python3", "-c", "from multiprocessing.spawn import spawn_main; spawn_main(pipe_handle=7)"]),
    ):
        _made(tmp_path, pid, parent, "\0".join(words) + "\0")

    assert name_of(9, str(tmp_path)).name == "spawn_main"


def test_a_child_of_a_child_is_called_after_the_program_that_began_it(tmp_path: Path) -> None:
    spawned = "python3\0-c\0from multiprocessing.spawn import spawn_main; spawn_main(pipe_handle=7)\0"
    _made(tmp_path, 7, 1, "python3\0/srv/train.py\0")
    _made(tmp_path, 8, 7, spawned)
    _made(tmp_path, 9, 8, spawned)

    assert name_of(9, str(tmp_path)).name == "spawn_main of train.py"


def test_a_thread_of_the_kernel_and_a_title_are_shown_as_such(tmp_path: Path) -> None:
    _made(tmp_path, 2, 0, "")
    _made(tmp_path, 3, 1, f"postgres: writer {SECRET}\0\0\0")

    assert name_of(2, str(tmp_path)).name == "[comm]"
    assert name_of(3, str(tmp_path)).name == "postgres"


def test_a_process_that_is_gone_has_no_name(tmp_path: Path) -> None:
    with running(sys.executable, "-c", WAIT) as (pid, _):
        assert name_of(pid).name

    assert name_of(pid) == NOBODY


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_another_user_is_named_and_ones_own_is_not() -> None:
    with running("sh", "-c", "echo ready; read line", user=children.NOBODY) as (pid, _):
        assert name_of(pid).user in {"nobody", str(children.NOBODY)}
    with running("sh", "-c", "echo ready; read line") as (pid, _):
        assert name_of(pid).user == ""


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["python3", "-P", "-m", "shm_monitor.sampler"], "shm-monitor sampler"),
        (["python3", "-m", "shm_monitor_api", "--name", "a"], "shm-monitor api"),
        (["python3", "-m", "shm_monitor", "top", "--url", SECRET], "shm-monitor top"),
        (["/v/bin/python", "/v/bin/shm-monitor", "run", "--", "train"], "shm-monitor run"),
        (["/v/bin/python", "/v/bin/shm-monitor", "--version"], "shm-monitor"),
        (["python3.13t", "-X", "dev", "-OO", "--check-hash-based-pycs", "never", "a.py"], "a.py"),
        (["python3", "-Xdev", "-Werror", "-ic", SECRET], "-c"),
        (["python3", "-mhttp.server", SECRET], "-m http.server"),
        (["python3", "-"], "python3"),
        (["python3"], "python3"),
        (["pypy3.10", "a.py"], "a.py"),
        (["-bash"], "bash"),
        (["/opt/my tools/runner", SECRET], "runner"),
        ([f"/usr/lib/chromium/chromium --type=renderer --data=/tmp/{SECRET} {SECRET}"], "chromium"),
        (["ray::train", ""], "ray::train"),
    ],
)
def test_a_command_line_is_called(words: list[str], name: str) -> None:
    assert program_of(words) == name


def test_a_name_is_text_of_one_length_whatever_the_bytes_are(tmp_path: Path) -> None:
    _made(tmp_path, 5, 1, "python3\0" + "\udcff" + "x" * 5000)

    name = name_of(5, str(tmp_path)).name
    assert name.startswith("\\xffxxx")
    assert len(name) == 80
    name.encode()


def _made(proc: Path, pid: int, parent: int, command: str) -> None:
    """Make the files of one process in *proc*."""
    place = proc / str(pid)
    place.mkdir()
    (place / "status").write_text(f"Name:\tcomm\nPPid:\t{parent}\nUid:\t{os.getuid()}\t{os.geteuid()}\t0\t0\n")
    (place / "cmdline").write_bytes(command.encode(errors="surrogateescape"))
