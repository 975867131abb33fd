"""What ``shm-monitor run`` shows on a terminal: ``shm-monitor top``, a process of its own beside the sampler.

The screen costs tens of megabytes, and what keeps the sampler alive should not be what holds them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess

from shm_monitor.interpreter import interpreter, same_modules
from shm_monitor.supervision.keeper import wait_or_kill


class View:
    """The process that shows the sampler *name* on this terminal."""

    def __init__(self, name: str, url: str) -> None:
        """Prepare; *url* is where the API is, empty without one."""
        address = ["--api-url", url] if url else []
        self._command = [interpreter(), "-P", "-m", "shm_monitor", "top", "--name", name, *address]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Show; the sampler must be there."""
        self._process = subprocess.Popen(self._command, env={**os.environ, **same_modules()})

    def has_ended(self) -> bool:
        """Say whether the person has closed it."""
        return self._process is not None and self._process.poll() is not None

    def end(self) -> None:
        """Give the terminal back."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        wait_or_kill(self._process)
