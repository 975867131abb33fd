"""However it is stopped: each process ends with the status that it should, and says nothing that is not documented."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Self

import httpx
import psutil
import pytest

from tests.support.surroundings import UNMEASURED, child_environment, files_of
from tests.support.waiting import PATIENCE_SECONDS, wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.processes

END_OF_FILE, TYPED = "end of file", "Ctrl-C"
HOW = (signal.SIGINT, signal.SIGTERM, END_OF_FILE)
SCREEN, END_OF_SCREEN, CONTROL = b"\x1b[?1049h", b"\x1b[?1049l", re.compile("\x1b[^a-zA-Z]*[a-zA-Z]")
SAMPLER_AND_API = {"shm_monitor.sampler": 0, "shm_monitor_api": 0}
DOCUMENTED = re.compile(
    r"shm-monitor: \S+: sampler \d+ started|shm-monitor api: listening on http://127.0.0.1:\d+"
    r"|shm-monitor sampler\[\d+\]: kernels compiled in [\d.]+ s"
)


class Command:
    """``shm-monitor``, with a terminal of its own or pipes; leaving it kills what is left."""

    def __init__(self, note: Path, *arguments: str, on_terminal: bool = False) -> None:
        self._note = note
        self._shown = b""
        self._terminal, side = pty.openpty() if on_terminal else (-1, -1)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.support.ended_children", str(note), *arguments],
            env=child_environment(TERM="xterm-256color", COLUMNS="100", LINES="40", **UNMEASURED),
            stdin=side if on_terminal else subprocess.PIPE,
            stdout=side if on_terminal else subprocess.DEVNULL,
            stderr=side if on_terminal else subprocess.PIPE,  # where the view is drawn
            start_new_session=True,
        )
        if on_terminal:
            os.close(side)

    def is_up(self) -> bool:
        """Say whether it answers requests, and shows the last line of what is shown on a terminal."""
        self._read_terminal()
        assert self.process.poll() is None, self.said()
        shown = b"quit" in self._shown or b"listening" in self._shown
        return (self._terminal < 0 or shown) and self.serves()

    def serves(self) -> bool:
        """Say whether one of its processes answers requests."""
        root = psutil.Process(self.process.pid)
        with contextlib.suppress(psutil.Error, httpx.TransportError):
            for one in (root, *root.children()):
                for connection in one.net_connections("tcp"):
                    if connection.status == psutil.CONN_LISTEN:
                        url = f"http://127.0.0.1:{connection.laddr.port}/readyz"
                        return httpx.get(url, timeout=PATIENCE_SECONDS).status_code in {200, 503}
        return False

    def stop(self, how: signal.Signals | str) -> int:
        """Send a signal, type Ctrl-C, or end its standard input, which hangs up a terminal; return its status."""
        if isinstance(how, signal.Signals):
            self.process.send_signal(how)
        elif how == TYPED:
            os.write(self._terminal, b"\x03")
        else:
            self._close_input()
        wait_until(self._has_ended)
        return self.process.returncode

    def said(self) -> list[str]:
        """Return the lines that it and all its processes have written to stderr, beside what was the view's screen."""
        if self.process.stderr is not None:
            return self.process.stderr.read().decode().splitlines()
        _, left, text = self._shown.rpartition(END_OF_SCREEN)
        if SCREEN in self._shown and not left:
            return []  # the terminal hung up during the view
        return CONTROL.sub("", text.decode()).replace("^C", "").splitlines()

    def children(self) -> dict[str, int]:
        """Return how each process ended that it started."""
        return dict(json.loads(self._note.read_text()))

    def __enter__(self) -> Self:
        try:
            wait_until(self.is_up)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Kill what is left, and let go of its pipes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._close_input()
        if self.process.stderr is not None:
            self.process.stderr.close()

    def _close_input(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1

    def _has_ended(self) -> bool:
        self._read_terminal()
        return self.process.poll() is not None

    def _read_terminal(self) -> None:
        """Take what is shown, so that who shows it goes on."""
        with contextlib.suppress(OSError):  # Linux: the other side is closed
            while self._terminal >= 0 and select.select([self._terminal], [], [], 0)[0]:
                self._shown += os.read(self._terminal, 65536)


def assert_clean(command: Command, name: str, children: dict[str, int]) -> None:
    """Check how its processes ended, what they said and what they left."""
    assert [line for line in command.said() if not DOCUMENTED.fullmatch(line)] == []
    assert command.children() == children
    assert files_of(name) == []


THOROUGH = (
    pytest.param(3, marks=pytest.mark.slow),
    pytest.param(10, marks=[pytest.mark.soak, pytest.mark.timeout(1200)]),
)


@pytest.mark.parametrize("rounds", [1, *THOROUGH])
@pytest.mark.parametrize("how", HOW)
def test_a_sampler_with_its_api_without_a_terminal(
    name: str, tmp_path: Path, how: signal.Signals | str, rounds: int
) -> None:
    """It does not read its input, whose end changes nothing; then it is stopped as a service is."""
    for _ in range(rounds):
        run = ("run", "--name", name, "--set", "check_interval=0.2", "--bind", "127.0.0.1:0")
        with Command(tmp_path / "ends", *run) as command:
            if how == END_OF_FILE:
                assert command.process.stdin is not None
                command.process.stdin.close()
                assert command.serves()
            assert command.stop(signal.SIGTERM if how == END_OF_FILE else how) == 0
            assert_clean(command, name, SAMPLER_AND_API)


@pytest.mark.parametrize("rounds", THOROUGH)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, TYPED])
def test_a_sampler_with_its_api_on_a_terminal_without_the_view(
    name: str, tmp_path: Path, how: signal.Signals | str, rounds: int
) -> None:
    for _ in range(rounds):
        run = ("run", "--no-view", "--name", name, "--set", "check_interval=0.2", "--bind", "127.0.0.1:0")
        with Command(tmp_path / "ends", *run, on_terminal=True) as command:
            assert command.stop(how) == 0
            assert_clean(command, name, SAMPLER_AND_API)


@pytest.mark.parametrize("rounds", THOROUGH)
@pytest.mark.parametrize("how", [*HOW, TYPED])
def test_a_sampler_with_its_api_on_a_terminal(
    name: str, tmp_path: Path, how: signal.Signals | str, rounds: int
) -> None:
    pytest.importorskip("textual", reason="the extra tui is not installed")
    for _ in range(rounds):
        run = ("run", "--name", name, "--set", "check_interval=0.2", "--bind", "127.0.0.1:0")
        with Command(tmp_path / "ends", *run, on_terminal=True) as command:
            assert command.stop(how) == 0
            assert_clean(command, name, {**SAMPLER_AND_API, "shm_monitor": 0})


@pytest.mark.parametrize("rounds", THOROUGH)
@pytest.mark.parametrize(("how", "status"), [(signal.SIGINT, -2), (signal.SIGTERM, -15), (END_OF_FILE, 0)])
def test_a_command_beside_a_sampler_with_its_api(
    name: str, tmp_path: Path, how: signal.Signals | str, status: int, rounds: int
) -> None:
    for _ in range(rounds):
        run = ("run", "--name", name, "--set", "check_interval=0.2", "--bind", "127.0.0.1:0", "--", "cat")
        with Command(tmp_path / "ends", *run) as command:
            assert command.stop(how) == (128 - status if status else 0)
            assert_clean(command, name, {**SAMPLER_AND_API, "cat": status})


@pytest.mark.parametrize("rounds", [1, *THOROUGH])
@pytest.mark.parametrize("how", HOW)
def test_an_api_that_stops_at_the_end_of_its_input(
    name: str, tmp_path: Path, how: signal.Signals | str, rounds: int
) -> None:
    """``api`` becomes another program, so there is nobody to note children, and it has none."""
    for _ in range(rounds):
        with Command(tmp_path / "ends", "api", "--stop-at-eof", "--name", name, "--bind", "127.0.0.1:0") as command:
            assert command.stop(how) == 0
            assert [line for line in command.said() if not DOCUMENTED.fullmatch(line)] == []
