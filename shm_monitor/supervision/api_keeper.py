"""Keep an API process alive beside the sampler; whatever becomes of it, the sampler goes on."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from typing import TYPE_CHECKING

from shm_monitor import exits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

_log = logging.getLogger("shm_monitor")

BACKOFF_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
HEALTHY_SECONDS = 60.0  # after which the next crash counts as the first again
STOP_SECONDS = 1.8  # then SIGKILL


class ApiKeeper:
    """One API process at a time, watched by a daemon thread.

    Its standard input is a pipe that this process holds: it ends with this process, however that ends.

    Attributes:
        restarts: how often it was started after the first time.
    """

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        backoff_seconds: Sequence[float] = BACKOFF_SECONDS,
    ) -> None:
        """Prepare to run *command* with *environ*; :meth:`start` begins."""
        self.restarts = 0
        self._command = list(command)
        self._environ = dict(environ)
        self._backoff_seconds = backoff_seconds
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="shm-monitor-api", daemon=True)

    @property
    def pid(self) -> int | None:
        """The pid of the API process that runs now, if one does."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def start(self) -> None:
        """Start the first API process; it listens a second later."""
        self._thread.start()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def ask_to_stop(self) -> None:
        """Tell the process to end, without waiting for it."""
        with self._lock:
            self._stop.set()
            process = self._process
        if process is not None and process.poll() is None:
            process.terminate()

    def stop(self) -> None:
        """End the process, within 2 s, and wait for the end of the thread."""
        self.ask_to_stop()
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive() and self._process is not None:
            self._process.kill()
        self._thread.join()

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            began = time.monotonic()
            status = self._one_life()
            if self._stop.is_set() or status == exits.USAGE:
                return  # it has said itself why it cannot serve; another start would say the same
            failures = 1 if time.monotonic() - began > HEALTHY_SECONDS else failures + 1
            pause = self._backoff_seconds[min(failures, len(self._backoff_seconds)) - 1]
            _log.warning("the API ended with status %d; starting it again in %g s", status, pause)
            if not self._stop.wait(pause):
                self.restarts += 1

    def _one_life(self) -> int:
        """Run one API process and return its exit status."""
        with self._lock:
            if self._stop.is_set():
                return exits.FINE
            process = self._process = subprocess.Popen(self._command, env=self._environ, stdin=subprocess.PIPE)
        with process:
            return process.wait()
