"""Keep an API process alive beside the sampler; whatever becomes of it, the sampler goes on."""

from __future__ import annotations

import logging
import subprocess
from typing import TYPE_CHECKING

from shm_monitor import exits
from shm_monitor.supervision.keeper import Keeper, Next

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

_log = logging.getLogger("shm_monitor")


class ApiKeeper(Keeper):
    """One API process at a time.

    Its standard input is a pipe that this process holds: it ends with this process, however that ends.
    """

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], *, backoff_seconds: Sequence[float] | None = None
    ) -> None:
        """Prepare to run *command* with *environ*; ``start`` begins."""
        super().__init__("shm-monitor-api", backoff_seconds=backoff_seconds)
        self._command = list(command)
        self._environ = dict(environ)
        self._status = exits.FINE

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

    def _live(self, pause: float) -> Next:
        if self._stopping.wait(pause):
            return Next.NOTHING
        self.restarts += self._process is not None
        try:
            process = self._process = subprocess.Popen(self._command, env=self._environ, stdin=subprocess.PIPE)
        except OSError as error:  # out of processes, memory or descriptors, which passes
            _log.warning("the API cannot be started: %s", error)
            return Next.AFTER_A_PAUSE
        try:
            if not self._stopping.is_set():  # else whoever asked has not seen this process
                self._status = process.wait()
        finally:
            self._end(process)
        # A usage error: it has said itself why it cannot serve; another start would say the same.
        return Next.NOTHING if self._status == exits.USAGE else Next.AFTER_A_PAUSE

    def _tell_pause(self, pause: float) -> None:
        level = logging.WARNING if self._status else logging.DEBUG  # 0: somebody asked it to stop
        _log.log(level, "the API ended with status %d; starting it again in %g s", self._status, pause)
