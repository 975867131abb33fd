"""Wait for calm before work is taken on: between tasks, in an event loop, and in front of any iterable."""

from __future__ import annotations

import os

from shm_monitor.light import TYPE_CHECKING
from shm_monitor.segment.names import NAME_VARIABLE
from shm_monitor.worker.attaching import attach
from shm_monitor.worker.pausing import wait_for_calm, wait_for_calm_async

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeVar

    from shm_monitor.worker.episode import Episode
    from shm_monitor.worker.reader import Reader

    T = TypeVar("T")
    F = TypeVar("F", bound=Callable[[Episode], Any])


_readers: dict[str | None, Reader] = {}  # that of the default sampler of now, by what the environment says of its name


def calm(max_wait: float | None = 60.0, *, reader: Reader | None = None) -> bool:
    """Wait until nothing presses, at most *max_wait* seconds; return whether that is so.

    Args:
        max_wait: None waits for as long as it takes.
        reader: None asks for the memory limit of the default sampler, as ``attach()`` does, by one reader for all such
            calls. Without a sampler it is calm.
    """
    return wait_for_calm(reader or _of_default(), max_wait)


async def calm_async(max_wait: float | None = 60.0, *, reader: Reader | None = None) -> bool:
    """Await what ``calm`` waits for."""
    return await wait_for_calm_async(reader or _of_default(), max_wait)


def _of_default() -> Reader:
    """Return the reader of the default sampler of now: its absence is one warning, not one in each call."""
    name = os.environ.get(NAME_VARIABLE)
    reader = _readers.get(name)
    if reader is None:
        _readers.clear()
        reader = _readers[name] = of_memory()
    return reader


class Throttled:
    """An iterable that waits for calm before each of its items, and has their number; made by ``throttle``."""

    def __init__(self, iterable: Iterable[T], reader: Reader, max_wait: float | None, min_running: int) -> None:
        """Wait by *reader*."""
        self._iterable: Iterable[Any] = iterable
        self._reader = reader
        self._max_wait = max_wait
        self._min_running = min_running

    def __iter__(self) -> Iterator[Any]:
        """Yield the items."""
        for number, item in enumerate(self._iterable):
            if number >= self._min_running:
                wait_for_calm(self._reader, self._max_wait)
            yield item

    def __len__(self) -> int:
        """Return the number of items, for progress bars; TypeError where the iterable does not know it."""
        return len(self._iterable)  # type: ignore[arg-type] # the TypeError is the answer


def throttle(
    iterable: Iterable[T], *, reader: Reader | None = None, max_wait: float | None = 60.0, min_running: int = 1
) -> Iterable[T]:
    """Return *iterable* so that it waits for calm before each item, at most *max_wait* seconds.

    For whatever takes its items one by one, as it has room for them: a loop, ``joblib.Parallel`` with ``batch_size=1``
    and ``pre_dispatch="n_jobs"``. The first *min_running* items never wait, so that something always runs.

    It holds nothing back where all items are taken at once, before the first task has taken its memory: ``Pool.map``,
    ``Pool.imap``, ``Executor.map``, ``asyncio.gather``. There take ``bounded_map()`` or ``BoundedExecutor``, which also
    predict what a task will take. This only waits, and reserves nothing.
    """
    return Throttled(iterable, of_memory() if reader is None else reader, max_wait, min_running)


def when_pressed(*, reader: Reader | None = None, watch: Iterable[str] = ("memory",)) -> Callable[[F], F]:
    """Return a decorator: the function is called with each ``Episode`` once, when it begins, from a daemon thread.

    An episode that is open when the function is decorated counts: a restarted worker is called for it within a second.

        @sm.when_pressed()
        def shed(episode: sm.Episode) -> None:
            cache.shrink(sm.attach().shed_bytes())

    In a forked child it is not called; decorate there. Ends when *reader* is closed.
    """
    own = attach(timeout=0.0, required=False, watch=watch) if reader is None else reader

    def decorate(function: F) -> F:
        seen = 0

        def begun(episode: Episode | None) -> None:
            nonlocal seen
            if episode is not None and episode.number != seen:
                seen = episode.number
                function(episode)

        own.on_change(begun)
        return function

    return decorate


def of_memory() -> Reader:
    """Return a reader of the memory limit that never raises for want of a sampler."""
    return attach(timeout=0.0, required=False, watch=["memory"])
