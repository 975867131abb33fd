"""Runs the blocks of a page as somebody does who reads it: in an empty directory, beside a sampler and its API."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import shm_monitor as sm
from tests.support.pages import Block, stands_for
from tests.support.stopped import Terminal
from tests.support.surroundings import ROOT, child_environment
from tests.support.waiting import PATIENCE_SECONDS, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable

SERVES = re.compile(r"(?:\w+=\S+ )*(?:make run\b|shm-monitor run\b(?! -- ))")
FULL_SCREEN = re.compile(r"make run\b|shm-monitor top\b(?!.*--once)")
UNTIL_STOPPED = re.compile(r"shm-monitor (?:top\b(?!.*--once)|record\b|api\b|.*--follow)|uvicorn\b|curl -sN")
TAKES_EFFECT = re.compile(r"shm-monitor inject\b(?!.*--end)|kill -HUP")
RECORDS = re.compile(r"shm-monitor record\b")
ANSWERS = re.compile(r"shm-monitor api\b|uvicorn\b")
STOPPED = (0, -signal.SIGINT)  # uvicorn ends by the signal that stopped it
CRASHED = re.compile(r"^Traceback|^Fatal Python error", re.MULTILINE)
DONE = "@@ done"
OF_MAKE = ("ARGS", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "PYTHON", "VENV")  # of `make test` above us
BIN = Path(sys.executable).parent
FAST = {
    "SHM_MONITOR_CHECK_INTERVAL": "0.2",
    "SHM_MONITOR_OBSERVATION_PERIOD": "2",
    "SHM_MONITOR_STALE_AFTER": "100",  # a machine that is busy for seconds makes no hang
    "SHM_MONITOR_COMPILE": "never",
    "OPENBLAS_NUM_THREADS": "1",
}


class PageRun:
    """Runs blocks one after the other; ``faults`` has what was not as printed.

    Attributes:
        faults: a text for each, with its line of the page.
    """

    def __init__(self, directory: Path, name: str, **settings: str) -> None:
        """Make the directory what a clone is after ``make run`` has set it up, and start a sampler with its API."""
        self.faults: list[str] = []
        self._directory, self._name = directory, name
        self._port = _free_port()
        self._environ = child_environment(
            **{**FAST, **settings},
            SHM_MONITOR_NAME=name,
            SHM_MONITOR_BIND=f"127.0.0.1:{self._port}",
            HOME=str(directory),
            XDG_CONFIG_HOME=str(directory),
            PATH=os.pathsep.join([str(BIN), os.environ["PATH"]]),
            BROWSER="true",
            TERM="xterm-256color",
        )
        for key in OF_MAKE:
            self._environ.pop(key, None)
        self._source = ""
        self._serving: Terminal | None = None
        _look_like_a_clone(directory)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            undo.callback(self._stop)
            self._serve("shm-monitor run")
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def is_calm(self) -> bool:
        """Say whether nothing presses on this machine by itself."""
        return self._snapshot().level == "ok"

    def run(self, blocks: Iterable[Block]) -> None:
        """Run *blocks*, but those and the commands that say why they are not."""
        for block in filter(Block.runs, blocks):
            file = block.note("file")
            if file:
                (self._directory / file).write_text(block.text, encoding="utf-8")
            elif block.language == "python":
                self._run_python(block)
            elif block.language == "console":
                self._run_console(block)

    def _run_python(self, block: Block) -> None:
        self._source = "\n".join([self._source if block.note("continues") is not None else "", block.source()])
        file = self._directory / f"line_{block.line}.py"
        file.write_text(self._source, encoding="utf-8")
        status, shown = self._finished([sys.executable, file.name])
        if status or CRASHED.search(shown):
            self._fault(block, file.name, "ends with 0 and without a traceback", f"{shown}\nstatus {status}")

    def _run_console(self, block: Block) -> None:
        before, deadline = self.faults, time.monotonic() + PATIENCE_SECONDS
        while True:
            self.faults = []
            self._run_commands(block)
            if not self.faults or block.note("again") is None or time.monotonic() > deadline:
                break
        self.faults = before + self.faults

    def _run_commands(self, block: Block) -> None:
        waiting: list[tuple[str, str]] = []
        for command, printed in block.commands():
            if block.note("not run", command) is not None:
                continue
            if SERVES.match(command) or UNTIL_STOPPED.match(command):
                self._run_together(block, waiting)
                waiting = []
                self._run_long(block, command, printed)
                continue
            waiting.append((command, printed))
            if TAKES_EFFECT.match(command):
                epoch = self._snapshot().epoch
                self._run_together(block, waiting)
                waiting = []
                wait_until(partial(self._took_effect, command, epoch))
        self._run_together(block, waiting)

    def _run_together(self, block: Block, commands: list[tuple[str, str]]) -> None:
        """Run commands that end by themselves in one shell, and compare what each shows."""
        lines = [f"{self._here(one)}\ns=$?; printf '\\n{DONE} %d\\n' $s; (exit $s)" for one, _ in commands]
        _, shown = self._finished(["bash", "-c", "\n".join(lines)])
        parts = re.split(rf"\n{DONE} (\d+)\n", shown)
        for number, (command, printed) in enumerate(commands):
            part, status = (*parts[2 * number : 2 * number + 2], "", "none")[:2]
            self._compare(block, command, printed, self._as_printed(part), status)

    def _compare(self, block: Block, command: str, printed: str, shown: str, status: str) -> None:
        fails = status != "0" and not printed
        if fails or CRASHED.search(shown) or (printed and not stands_for(printed, shown)):
            self._fault(block, command, printed or "status 0", f"{shown}\nstatus {status}")

    def _run_long(self, block: Block, command: str, printed: str) -> None:
        """Start what runs until it is stopped, look at it, and stop it; what serves is left to the next commands."""
        if SERVES.match(command):
            self._serve(command)
            return
        port = _free_port()
        environ = {**self._environ, "SHM_MONITOR_BIND": f"127.0.0.1:{port}", "UVICORN_PORT": str(port)}
        files, sizes = set(self._directory.iterdir()), set[int]()

        def is_seen() -> bool:
            shown = self._as_printed(started.shown())
            if ANSWERS.match(command):
                return _is_answered(port)
            if RECORDS.match(command):  # a head, and then a sample
                sizes.update(file.stat().st_size for file in set(self._directory.iterdir()) - files)
                return len(sizes - {0}) > 1
            return stands_for(printed, shown) if printed else bool(shown)

        with self._terminal(command, environ) as started:
            with contextlib.suppress(AssertionError):
                wait_until(is_seen)
            seen = is_seen()
        shown, status = started.shown(), started.process.returncode
        if status not in STOPPED or CRASHED.search(shown) or not seen:
            wanted = printed or "shows something, and ends when it is stopped"
            self._fault(block, command, wanted, f"{shown}\nstatus {status}")

    def _terminal(self, command: str, environ: dict[str, str]) -> Terminal:
        on_screen = bool(FULL_SCREEN.match(command))
        return Terminal(self._here(command), self._directory, environ, on_screen=on_screen)

    def _snapshot(self) -> sm.Snapshot:
        with sm.attach(self._name) as reader:
            return reader.snapshot()

    def _took_effect(self, command: str, epoch: int) -> bool:
        """Say whether the sampler has done what *command* wants, as it has when a person types the next one."""
        now = self._snapshot()
        return bool(now.injected) if "inject" in command else now.epoch != epoch and not now.stale

    def _serve(self, command: str) -> None:
        self._stop()
        self._serving = self._terminal(command, self._environ)
        wait_until(self._is_served)

    def _is_served(self) -> bool:
        """Say whether the API answers, of a live sampler."""
        assert self._serving is not None
        assert self._serving.process.poll() is None, self._serving.shown()
        return _is_answered(self._port)

    def _stop(self) -> None:
        if self._serving is None:
            return
        with self._serving as stopped:
            self._serving = None
        shown, status = stopped.shown(), stopped.process.returncode
        if status or CRASHED.search(shown):
            self.faults.append(f"a sampler that was stopped ended with status {status}:\n{shown}")

    def _finished(self, words: list[str]) -> tuple[int, str]:
        done = subprocess.run(
            words,
            cwd=self._directory,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=2 * PATIENCE_SECONDS,
            check=False,
        )
        return done.returncode, done.stdout

    def _here(self, command: str) -> str:
        """Return *command* with the address, the process and the command of this run in the place of the printed."""
        pid = str(self._serving.process.pid) if self._serving else "PID"
        command = re.sub(r"(localhost|127\.0\.0\.1):8909", f"127.0.0.1:{self._port}", command)
        for there, here in (("CMD ...", "true"), (" PID", f" {pid}"), (" NAME", f" {self._name}")):
            command = command.replace(there, here)
        return command

    def _as_printed(self, shown: str) -> str:
        """Return *shown* with the names of everybody in the place of those of this run."""
        for here, there in ((self._name, "default"), (f":{self._port}", ":8909"), (str(self._directory), "~")):
            shown = shown.replace(here, there)
        return shown.strip()

    def _fault(self, block: Block, command: str, printed: str, shown: str) -> None:
        self.faults.append(f"line {block.line}: {command}\n--- printed:\n{printed}\n--- shown:\n{shown}")


def _look_like_a_clone(directory: Path) -> None:
    for file in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / file, directory)
    (directory / ".venv").mkdir()
    (directory / ".venv" / "bin").symlink_to(BIN)
    (directory / ".venv" / ".run").touch()  # what `make run` leaves when it has set up


def _is_answered(port: int) -> bool:
    """Say whether an API answers on *port*, of a live sampler."""
    with contextlib.suppress(OSError):
        return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).status == 200)
    return False


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
