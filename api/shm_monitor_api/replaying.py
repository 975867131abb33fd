"""What other settings would have decided: asked of a process that has numpy and the kernels, and is gone soon after.

One process at a time answers one question at a time; a few more may wait. It lingers for a while, because who moves a
slider asks again; after that the API is as small as it was.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from shm_monitor.interpreter import interpreter
from shm_monitor.traces.what_if import Answer, Question

if TYPE_CHECKING:
    from collections.abc import Iterator

WAITING_MAX = 4  # questions at once, the one that is answered among them
ANSWER_SECONDS = 20.0  # 20,000 samples take 1 s; the first time on a machine the kernels are compiled, which takes 5
LINGER_SECONDS = 30.0
ANSWER_BYTES_MAX = 16 * 2**20  # 20,000 samples that press each second time are 2 MB


class ReplayerError(Exception):
    """The process that answers said nothing, or nothing in time."""


class TooManyReplaysError(Exception):
    """As many wait for an answer as may."""


class Replayer:
    """The process that answers, started when it is needed. For threads; each question waits for the one before.

    Attributes:
        lingers: whether the process stays for a while after an answer; who sets it calls ``close``.
    """

    def __init__(self, *, linger_seconds: float = LINGER_SECONDS) -> None:
        self.lingers = False
        self._linger_seconds = linger_seconds
        self._waiting = 0
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ends: threading.Timer | None = None

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Have a place in the row of questions; for the event loop.

        Raises:
            TooManyReplaysError: all places are taken.
        """
        if self._waiting >= WAITING_MAX:
            raise TooManyReplaysError(f"{self._waiting} replays are asked for already, which is all that may be")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    @property
    def pid(self) -> int | None:
        """The process that lingers; None where none does."""
        return None if self._process is None else self._process.pid

    def ask(self, question: Question) -> Answer:
        """Return the answer to *question*.

        Raises:
            ReplayerError: there is none.
        """
        with self._lock, self._lingering():
            try:
                process = self._process or self._started()
                return msgspec.json.decode(_exchanged(process, msgspec.json.encode(question) + b"\n"), type=Answer)
            except (OSError, msgspec.DecodeError, ReplayerError) as error:
                self._end()
                raise ReplayerError(f"the process that replays: {error}") from error

    def close(self) -> None:
        """End the process."""
        self.lingers = False
        process = self._process
        if process is not None:
            process.kill()  # who waits for an answer waits no longer
        with self._lock, self._lingering():
            pass

    def _started(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [interpreter(), "-P", "-m", "shm_monitor.traces"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self._process

    @contextlib.contextmanager
    def _lingering(self) -> Iterator[None]:
        """Let the process stay for a while after what is done in this context, or not at all."""
        if self._ends is not None:
            self._ends.cancel()
        try:
            yield
        finally:
            if self.lingers:
                self._ends = threading.Timer(self._linger_seconds, self._end_idle)
                self._ends.daemon = True
                self._ends.start()
            else:
                self._end()

    def _end_idle(self) -> None:
        if self._lock.acquire(blocking=False):  # else somebody asks, and it lingers anew
            try:
                self._end()
            finally:
                self._lock.release()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _exchanged(process: subprocess.Popen[bytes], line: bytes) -> bytes:
    """Return the line that *process* answers to *line*."""
    if process.stdin is None or process.stdout is None:
        raise ReplayerError("no pipes")
    process.stdin.write(line)
    process.stdin.flush()
    output = process.stdout.fileno()
    ready = select.poll()  # not select, which takes no file beyond the thousandth
    ready.register(output, select.POLLIN)
    deadline, parts, length = time.monotonic() + ANSWER_SECONDS, [], 0
    while length <= ANSWER_BYTES_MAX:
        if not ready.poll(max(deadline - time.monotonic(), 0) * 1000):
            raise ReplayerError(f"no answer within {ANSWER_SECONDS:g} s")
        part = os.read(output, 65536)
        if not part:
            raise ReplayerError("it ended")
        parts.append(part)
        length += len(part)
        if part.endswith(b"\n"):
            return b"".join(parts)
    raise ReplayerError(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
