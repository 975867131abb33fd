"""``map``, ``imap`` and ``imap_unordered`` of a ``multiprocessing.Pool`` that take on no more than memory allows.

The pool's own take all items from their iterator at once, so nothing that waits in that iterator holds them back.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from queue import Empty, SimpleQueue

from shm_monitor.acting.admission import Admission
from shm_monitor.acting.pools import AHEAD, chunks_of, run_chunk
from shm_monitor.acting.wait_for_calm import of_memory
from shm_monitor.light import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.pool import Pool
    from typing import Any, TypeVar

    from shm_monitor.worker.reader import Reader

    T = TypeVar("T")
    R = TypeVar("R")

LOOK_SECONDS = 0.1  # how late freed memory or a dead worker is seen at most; a pool looks after its workers as often


def bounded_map(  # noqa: PLR0913 - three and the bounds, each with a default
    pool: Pool,
    fn: Callable[[T], R],
    items: Iterable[T],
    *,
    ordered: bool = True,
    chunksize: int = 1,
    limit: int | None = None,
    buffersize: int | None = None,
    reader: Reader | None = None,
    max_wait: float | None = 60.0,
) -> BoundedMap[R]:
    """Return an iterator over the results of ``fn(item)``, which *pool* computes as memory allows.

    In place of ``pool.imap(fn, items)``; of ``pool.imap_unordered`` with ``ordered=False``; of ``pool.map`` as
    ``list(sm.bounded_map(pool, fn, items))``. The first task runs alone until it has shown what it takes; then as many
    run as fit below the memory limit, as in ``BoundedExecutor``.

    Items are taken as results are: *items* may have no end, and nothing begins before the first ``next()``. What *fn*
    raises is raised in place of the results of its task, and the next ``next()`` goes on. What *items* raises comes
    after all results. ``close()`` ends the iteration; what runs then ends in the pool, and its results are dropped.

    Args:
        pool: a ``multiprocessing.Pool`` of any start method, or a ``ThreadPool``. It stays open.
        fn: as for the pool; it must be picklable.
        items: one for each call.
        ordered: false yields results as they come.
        chunksize: items per task; a task costs this process 0.2 ms, so take more where items take a few milliseconds.
        limit: tasks at once at most; None for the number of workers.
        buffersize: tasks at most that have begun and whose results are not taken; None for twice *limit*.
        reader: None asks for the memory limit of the default sampler, as ``attach()`` does. Without a sampler only
            *limit* and *buffersize* count.
        max_wait: seconds after which a task begins although memory is short; None waits for as long as it takes. One
            task always runs.

    Raises:
        TypeError: *pool* is none.
        ValueError: *chunksize*, *limit* or *buffersize* is less than 1.
        BrokenProcessPool: while iterating: a worker was killed, and its task with it, for which the pool itself would
            wait for ever. Other errors of the same kind: the pool was terminated.
    """
    if not hasattr(pool, "apply_async"):
        raise TypeError(f"{pool!r}; allowed is a multiprocessing.Pool. For an executor take sm.BoundedExecutor")
    most = _number_of_workers(pool) if limit is None else limit
    ahead = AHEAD * most if buffersize is None else buffersize
    for name, number in (("limit", most), ("buffersize", ahead)):
        if number < 1:
            raise ValueError(f"{name}={number}; allowed is 1 or more")
    chunks = chunks_of(((item,) for item in items), chunksize)
    admission = Admission(of_memory() if reader is None else reader, most)
    tasks = _Tasks(pool, fn, admission, limit=most, max_wait=max_wait)
    return BoundedMap(tasks, chunks, ordered=ordered, buffersize=ahead)


class BoundedMap(Iterator["R"]):
    """The results, as ``bounded_map`` makes them."""

    def __init__(self, tasks: _Tasks, chunks: Iterator[list[Any]], *, ordered: bool, buffersize: int) -> None:
        """Begin *tasks* with *chunks* of the items."""
        self._tasks = tasks
        self._chunks = chunks
        self._ordered = ordered
        self._buffersize = buffersize
        self._chunk: list[Any] | None = None  # was taken from the items and has not begun
        self._error: Exception | None = None  # of the items or of the pool: comes when all else is taken
        self._taken = 0
        self._results: deque[R] = deque()

    def __next__(self) -> R:
        """Return the next result, or raise in its place what its task raised."""
        while not self._results:
            self._begin_tasks()
            if self._taken == self._tasks.count:
                error, self._error = self._error, None
                raise StopIteration if error is None else error
            self._take_task()
        return self._results.popleft()

    def close(self) -> None:
        """Begin nothing more, and drop the results that were not taken."""
        self._end_items(None)
        self._taken = self._tasks.count
        self._tasks.ended.clear()
        self._results.clear()

    def _end_items(self, error: Exception | None) -> None:
        self._chunks, self._chunk, self._error = iter(()), None, error

    def _begin_tasks(self) -> None:
        """Begin as many tasks as there is room for."""
        try:
            while self._tasks.count - self._taken < self._buffersize:
                if self._chunk is None:
                    self._chunk = next(self._chunks, None)
                if self._chunk is None or not self._tasks.begin(self._chunk):
                    return
                self._chunk = None
        except Exception as error:  # noqa: BLE001 - whatever the items raise, or the pool, which may be closed by now
            self._end_items(error)

    def _take_task(self) -> None:
        """Take the results of the task whose turn it is, or wait a moment for one to end."""
        ended = self._tasks.ended
        number = self._taken if self._ordered else next(iter(ended), -1)
        if number not in ended:
            try:
                self._tasks.wait()
            except BrokenProcessPool:
                self.close()
                raise
            return
        self._taken += 1
        results = ended.pop(number)
        if isinstance(results, BaseException):
            raise results
        self._results.extend(results)


class _Tasks:
    """The tasks of one map.

    Attributes:
        count: how many have begun; a task's number is how many had begun before it.
        ended: the results of those that have ended, or what they raised, by their number.
    """

    def __init__(
        self, pool: Pool, fn: Callable[..., Any], admission: Admission, *, limit: int, max_wait: float | None
    ) -> None:
        self.count = 0
        self.ended: dict[int, list[Any] | BaseException] = {}
        self._pool = pool
        self._fn = fn
        self._admission = admission
        self._limit = limit
        self._max_wait = max_wait
        self._workers = _Workers(pool)
        self._running = 0
        self._arrivals: SimpleQueue[tuple[int, list[Any] | BaseException]] = SimpleQueue()
        self._waits_since: float | None = None

    def begin(self, chunk: list[Any]) -> bool:
        """Begin a task for *chunk* and return True, if there is room for it."""
        self._collect()
        if self._running >= self._limit or not self._is_let_in():
            return False
        end = functools.partial(self._end, self.count)
        try:
            self._pool.apply_async(run_chunk, (self._fn, chunk), callback=end, error_callback=end)
        except BaseException:
            self._admission.leave()
            raise
        self.count += 1
        self._running += 1
        return True

    def wait(self) -> None:
        """Take in what has ended, waiting a moment for the first.

        Raises:
            BrokenProcessPool: what runs will never end.
        """
        self._workers.check(self._running)
        with contextlib.suppress(Empty):
            self._take_in(*self._arrivals.get(timeout=LOOK_SECONDS))
        self._collect()

    def _collect(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                self._take_in(*self._arrivals.get_nowait())

    def _is_let_in(self) -> bool:
        """Ask for room; after *max_wait* seconds in vain there must be some."""
        now = time.monotonic()
        if not self._admission.enter(0.0):
            self._waits_since = now if self._waits_since is None else self._waits_since
            if self._max_wait is None or now - self._waits_since < self._max_wait:
                return False
            self._admission.force()
        self._waits_since = None
        return True

    def _end(self, number: int, results: list[Any] | BaseException) -> None:
        """Take in the end of a task; called by a thread of the pool."""
        self._admission.leave()
        self._arrivals.put((number, results))

    def _take_in(self, number: int, results: list[Any] | BaseException) -> None:
        self._running -= 1
        self.ended[number] = results


class _Workers:
    """The processes of a pool: a task that was in one that died has no end, and the pool does not say so.

    By names of ``Pool`` that are not public, ``_pool`` and ``_state`` of CPython 3.8 to 3.14: without them nothing is
    seen, and the wait is as long as the pool's own.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._next_look = 0.0
        self._alive: set[Any] = {one for one in self._now() if one.exitcode is None}

    def check(self, running: int) -> None:
        """Raise BrokenProcessPool if some of *running* tasks will never end; look ten times a second at most."""
        now = time.monotonic()
        if now < self._next_look or not running:
            return
        self._next_look = now + LOOK_SECONDS
        if getattr(self._pool, "_state", "") == "TERMINATE":
            raise BrokenProcessPool(f"the pool was terminated while {running} tasks ran: they have no result")
        self._alive.update(self._now())
        ended = {one: one.exitcode for one in self._alive if one.exitcode is not None}
        self._alive -= ended.keys()
        for worker, status in ended.items():
            if status:
                raise BrokenProcessPool(
                    f"a worker of the pool, process {worker.pid}, {_how(status)}: its task has no result. Where the "
                    "kernel killed it for memory, set limit= lower, or have tasks take less"
                )

    def _now(self) -> list[Any]:
        return list(getattr(self._pool, "_pool", ()))


def _how(status: int) -> str:
    if status > 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _number_of_workers(pool: Pool) -> int:
    """Return how many tasks *pool* runs at once, as far as it says so (by a name that is not public)."""
    return getattr(pool, "_processes", None) or os.cpu_count() or 1
