"""An executor in front of another one: takes on no more than memory allows, so that no task is killed half-way."""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from weakref import ref

from shm_monitor.acting.admission import Admission
from shm_monitor.acting.wait_for_calm import of_memory
from shm_monitor.forks import renew_in_child
from shm_monitor.light import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Literal, ParamSpec, TypeVar

    from shm_monitor.acting.governor import Governor
    from shm_monitor.worker.reader import Reader

    P = ParamSpec("P")
    T = TypeVar("T")

_inside = threading.local()
AHEAD = 2  # map() keeps so many times the limit in flight: enough that no worker waits for the consumer


class BoundedExecutor(Executor):
    """Submits to another executor, and blocks in ``submit`` while there is no room for one more task.

        with sm.BoundedExecutor(ProcessPoolExecutor(8), limit=8) as pool:
            results = list(tqdm(pool.map(work, paths), total=len(paths)))

    A task that submits to the executor it runs in never blocks, for that would be a deadlock. Futures, exceptions,
    cancellation and a broken pool are those of the executor behind.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        limit: int | Governor,
        reader: Reader | None = None,
        max_wait: float | None = 60.0,
        min_running: int = 1,
        on_timeout: Literal["admit", "raise"] = "admit",
    ) -> None:
        """Stand in front of *executor*.

        Args:
            executor: any; it is shut down with this one.
            limit: how many tasks may run at once; usually its number of workers.
            reader: None asks for the memory limit of the default sampler, as ``attach()`` does. Without a sampler only
                *limit* counts.
            max_wait: seconds; None waits for as long as it takes.
            min_running: so many run whatever presses, so that something is always done.
            on_timeout: what happens after *max_wait*: the task is let in, or TimeoutError.

        Raises:
            ValueError: *on_timeout* or *min_running* is none of those allowed.
        """
        if on_timeout not in ("admit", "raise"):
            raise ValueError(f"on_timeout={on_timeout!r}; allowed are 'admit' and 'raise'")
        if min_running < 1:
            raise ValueError(f"min_running={min_running}; allowed is 1 or more: with 0 nothing would ever be done")
        self._executor = executor
        self._limit = limit
        self._max_wait = max_wait
        self._raises = on_timeout == "raise"
        self._admission = Admission(of_memory() if reader is None else reader, limit, min_running=min_running)
        self._submit = self._inner_submit()
        # These two hold a future until it is done, so that looking at it is enough.
        self._is_looked_at = isinstance(executor, ProcessPoolExecutor | ThreadPoolExecutor)
        self._renew()
        renew_in_child(self, BoundedExecutor._renew)

    def _renew(self) -> None:
        self._look_at = self._admission.pending.add  # of those that the admission has now

    @property
    def running(self) -> int:
        """How many tasks are let in and not yet ended."""
        return self._admission.running

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit *fn*, once there is room for it.

        Raises:
            TimeoutError: there was none in *max_wait* seconds, and ``on_timeout="raise"``.
            RuntimeError: this executor was shut down, maybe while it waited.
        """
        admission = self._admission
        # Without a call of its own: all that is not the executor's is to cost a fifth of what its submit() does.
        is_in = False
        if time.monotonic() < admission.next_look and not admission.ask():
            try:
                admission.places.pop()
            except IndexError:  # not to enter in here: an error that is kept would keep this frame, and so the result
                is_in = False
            else:
                is_in = True
        if not is_in:
            self._enter()
        try:
            future: Future[T] = self._submit(fn, *args, **kwargs)
        except BaseException:
            admission.leave()
            raise
        if self._is_looked_at:
            self._look_at(ref(future))
        else:
            future.add_done_callback(admission.leave)
        return future

    def _inner_submit(self) -> Callable[..., Future[Any]]:
        """Return how a task is given to the executor behind: such that ``_is_inside`` knows it again."""
        submit: Callable[..., Future[Any]] = self._executor.submit
        if isinstance(self._executor, ProcessPoolExecutor) or self._knows_its_threads():
            return submit
        return functools.partial(submit, _marked, id(self))

    def _enter(self) -> None:
        if not self._admission.enter(self._max_wait, must_not_wait=self._is_inside):
            if self._raises:
                raise TimeoutError(f"{self.running} tasks run and there is no room for one more in {self._max_wait} s")
            self._admission.force()

    def _knows_its_threads(self) -> bool:
        return isinstance(self._executor, ThreadPoolExecutor) and hasattr(self._executor, "_threads")

    def _is_inside(self) -> bool:
        """Return whether this thread works for the executor behind: to wait here might be to wait for itself."""
        if self._knows_its_threads():
            return threading.current_thread() in self._executor._threads  # type: ignore[attr-defined] # CPython 3.2-3.14
        return getattr(_inside, "executor", None) == id(self)

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """Yield the results in order; unlike others, it takes from *iterables* only as results are taken from it.

        Args:
            fn: called with one item of each iterable.
            iterables: as for ``map``.
            timeout: seconds from the call to each result, else TimeoutError.
            chunksize: items per task.
        """
        end = None if timeout is None else time.monotonic() + timeout
        limit = self._limit if isinstance(self._limit, int) else self._limit.full
        return self._mapped(fn, chunks_of(zip(*iterables, strict=False), chunksize), end, AHEAD * limit)

    def _mapped(self, fn: Callable[..., T], chunks: Iterator[list[Any]], end: float | None, ahead: int) -> Iterator[T]:
        futures: deque[Future[list[T]]] = deque()
        try:
            for chunk in chunks:
                futures.append(self.submit(run_chunk, fn, chunk))
                while futures and (len(futures) >= ahead or futures[0].done()):
                    yield from futures.popleft().result(_left(end))
            while futures:
                yield from futures.popleft().result(_left(end))
        finally:
            for future in futures:
                future.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut down the executor behind; who waits in ``submit`` gets a RuntimeError."""
        self._admission.close()
        self._executor.shutdown(wait, cancel_futures=cancel_futures)


def _marked(executor: int, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call *fn*, and let this thread know meanwhile in which executor it works."""
    before = getattr(_inside, "executor", None)
    _inside.executor = executor
    try:
        return fn(*args, **kwargs)
    finally:
        _inside.executor = before


def chunks_of(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    if size < 1:
        raise ValueError(f"chunksize={size}; allowed is 1 or more")
    return _cut(items, size)


def _cut(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def run_chunk(fn: Callable[..., T], chunk: list[Any]) -> list[T]:
    return [fn(*arguments) for arguments in chunk]


def _left(end: float | None) -> float | None:
    return None if end is None else max(end - time.monotonic(), 0.0)
