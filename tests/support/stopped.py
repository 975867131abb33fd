"""Commands that run until they are stopped, as a person starts and stops them."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import termios
import time
from typing import TYPE_CHECKING

from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self


class Terminal:
    """A command that runs until it is stopped, on a terminal or without one.

    Attributes:
        process: the command.
    """

    def __init__(self, command: str, directory: Path, environ: dict[str, str], *, on_screen: bool) -> None:
        """Start it; *on_screen* gives it a terminal."""
        self._on_screen = on_screen
        self._read, write = pty.openpty() if on_screen else os.pipe()
        if on_screen:
            termios.tcsetwinsize(write, (24, 80))
        os.set_blocking(self._read, False)
        self.process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=directory,
            env=environ,
            stdin=write if on_screen else subprocess.DEVNULL,
            stdout=write,
            stderr=write,
            start_new_session=True,
        )
        os.close(write)
        self._shown = b""

    def shown(self) -> str:
        """Return all that it has shown so far."""
        with contextlib.suppress(OSError):  # nothing more for now, or for ever
            while part := os.read(self._read, 65536):
                self._shown += part
        return self._shown.decode(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it as a person does: ``q`` on a screen, else Ctrl-C."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        if not self._on_screen:
            self.process.send_signal(signal.SIGINT)
        while self.process.poll() is None:
            if self._on_screen:
                with contextlib.suppress(OSError):
                    os.write(self._read, b"q")
            if time.monotonic() > deadline:
                os.killpg(self.process.pid, signal.SIGKILL)
            self.shown()
            time.sleep(0.1)
        self.shown()
        os.close(self._read)
        self._read = -1
