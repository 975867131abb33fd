"""What other settings would have decided: asked of a process that has numpy and the kernels, and is gone soon after.

One process at a time answers one question at a time; a few more may wait. It lingers for a while, because who moves a
slider asks again; after that the API is as small as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from shm_monitor.traces.what_if import Answer, Question
from shm_monitor_api import problems
from shm_monitor_api.problems import FieldError
from shm_monitor_api.queries import InvalidQueryError, replay_query
from shm_monitor_api.routes import answered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shm_monitor_api.readings import Readings

WAITING_MAX = 4  # questions at once, the one that is answered among them
ANSWER_SECONDS = 20.0  # 20,000 samples take 1 s; the first time on a machine the kernels are compiled, which takes 5
LINGER_SECONDS = 30.0
ANSWER_BYTES_MAX = 16 * 2**20  # 20,000 samples that press each second time are 2 MB


class ReplayerError(Exception):
    """The process that answers said nothing, or nothing in time."""


class Replayer:
    """The process that answers, started when it is needed. For threads; each question waits for the one before.

    Attributes:
        lingers: whether the process stays for a while after an answer; who sets it calls ``close``.
    """

    def __init__(self, *, linger_seconds: float = LINGER_SECONDS) -> None:
        self.lingers = False
        self._linger_seconds = linger_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ends: threading.Timer | None = None

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
            [sys.executable, "-P", "-m", "shm_monitor.traces"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
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


class ReplayRoute:
    """The endpoint that asks."""

    def __init__(self, readings: Readings, replayer: Replayer) -> None:
        self._readings = readings
        self._replayer = replayer
        self._waiting = 0

    async def get_replay(self, request: Request) -> Response:
        """Return what other settings would have decided over the samples that the ring still has, and what was."""
        path = request.scope["path"]
        try:
            settings = replay_query(request.scope["query_string"])
        except InvalidQueryError as error:
            return problems.problem(422, str(error), instance=path, errors=error.errors)
        reading = self._readings.newest()
        if find_spec("numpy") is None:
            detail = 'a replay takes numpy, which is not installed here; try: pip install "shm-monitor[sampler]"'
            return problems.problem(503, detail, instance=path)
        if self._waiting >= WAITING_MAX:
            again = {"retry-after": problems.RETRY_SECONDS}
            detail = f"{self._waiting} replays are asked for already, which is all that may be"
            return problems.problem(503, detail, instance=path, kind=problems.TOO_MANY_CLIENTS, headers=again)
        question = Question(self._readings.reader.name, settings)
        self._waiting += 1
        try:
            answer = await asyncio.to_thread(self._replayer.ask, question)
        except ReplayerError as error:
            return problems.problem(503, str(error), instance=path, headers={"retry-after": problems.RETRY_SECONDS})
        finally:
            self._waiting -= 1
        found = answer.found
        return refused(answer, path) if found is None else answered(request, reading, lambda: found)


def refused(answer: Answer, path: str) -> Response:
    """Return the problem that says why there is no answer."""
    why = answer.refused
    if why is None or not why.setting:
        return problems.problem(503, "" if why is None else why.detail, instance=path)
    errors = (FieldError(f"query.{why.setting}", why.detail),)
    return problems.problem(422, f"query.{why.setting}: {why.detail}", instance=path, errors=errors)
