"""A thread for calls that may never come back.

A driver call that hangs cannot be interrupted. What can be done is to leave it where it is, go on without its answer,
and not send another thread after it: one thread per device, made once, and skipped while its call is stuck.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class Caller(Generic[T]):
    """One daemon thread that makes one call at a time.

    ThreadPoolExecutor would do, but it waits for its threads when the interpreter ends, hung or not.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[tuple[Callable[[], T], Future[T]] | None] = SimpleQueue()
        self._latest: Future[T] | None = None
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """True while the latest call has not come back."""
        return self._latest is not None and not self._latest.done()

    def start(self, work: Callable[[], T]) -> Future[T] | None:
        """Begin *work* and return its future; None, and nothing begun, while the call before is stuck."""
        if self.busy:
            return None
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            thread.start()  # raises where the cgroup allows no more; then the next call tries again
            self._thread = thread
        future: Future[T] = Future()
        self._latest = future
        self._calls.put((work, future))
        return future

    def close(self) -> None:
        """Let the thread end after the call it is in, if that ever comes back."""
        self._calls.put(None)

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            work, future = item
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 (whoever asked gets it, whatever it is)
                future.set_exception(error)
            del item, work, future  # while idle, hold on to nothing that the last call used
