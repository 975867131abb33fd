"""What ``run`` shows on a terminal: a real one, made of a pseudo-terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.surroundings import child_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("textual", reason="the extra tui is not installed")

pytestmark = pytest.mark.processes

WAIT_SECONDS = 60.0
ALTERNATE_SCREEN, NORMAL_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"


class Terminal:
    """``shm-monitor run`` on a terminal of its own."""

    def __init__(self, name: str) -> None:
        self.fd, side = pty.openpty()
        command = [sys.executable, "-P", "-m", "shm_monitor", "run", "--name", name, "--no-api"]
        environ = child_environment(TERM="xterm-256color", COLUMNS="100", LINES="40")
        pipes = {"stdin": side, "stdout": side, "stderr": side}
        self.process = subprocess.Popen(command, env=environ, start_new_session=True, **pipes)  # type: ignore[call-overload]
        os.close(side)
        self.seen = b""

    def until(self, words: bytes) -> None:
        """Read until *words* have been shown."""
        deadline = time.monotonic() + WAIT_SECONDS
        while words not in self.seen:
            assert time.monotonic() < deadline, self.seen[-2000:]
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.fd, 65536)
                except OSError:  # Linux: the other side is closed
                    assert words in self.seen, self.seen[-2000:]

    def end(self) -> None:
        """Kill all of it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        with contextlib.suppress(OSError):  # a test has closed it
            os.close(self.fd)


@pytest.fixture
def terminal(name: str) -> Iterator[Terminal]:
    """A terminal that shows a sampler."""
    made = Terminal(name)
    yield made
    made.end()


def test_q_ends_the_view_and_the_sampler_and_gives_the_terminal_back(terminal: Terminal) -> None:
    terminal.until(ALTERNATE_SCREEN)
    terminal.until(b"no need to shed")
    os.write(terminal.fd, b"q")
    terminal.until(NORMAL_SCREEN)

    assert terminal.process.wait(WAIT_SECONDS) == 0


def test_a_service_manager_that_stops_it_gives_the_terminal_back(terminal: Terminal) -> None:
    terminal.until(b"no need to shed")
    terminal.process.terminate()
    terminal.until(NORMAL_SCREEN)

    assert terminal.process.wait(WAIT_SECONDS) == 0


def test_a_terminal_that_is_gone_ends_the_view_and_the_sampler(terminal: Terminal) -> None:
    """It is nobody's controlling terminal here, so that no SIGHUP tells: the view read its end for ever."""
    terminal.until(b"no need to shed")
    os.close(terminal.fd)

    assert terminal.process.wait(WAIT_SECONDS) == 0
