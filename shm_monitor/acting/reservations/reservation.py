"""``with sm.reserve():``: a task waits until its memory is there, holds its place, and is measured."""

from __future__ import annotations

import contextvars
import functools
import logging
import sys
import threading
import time
import weakref
import zlib

from shm_monitor.acting.reservations.ledger import Ledger
from shm_monitor.errors import MemoryWaitError
from shm_monitor.forks import importing, renew_in_child
from shm_monitor.light import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator
    from typing import Any, Self

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, PAUSE_GROWTH = 0.002, 0.025, 1.3
SAID_SECONDS = 5.0  # a wait of so long is said in the log, once

_log = logging.getLogger(__name__)
_inside: contextvars.ContextVar[bool] = contextvars.ContextVar("shm_monitor_inside_reservation", default=False)


class _Shared:
    """What the threads and event loops of one process share; a forked child begins with its own."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget all: record locks are not inherited."""
        self.turn = threading.Lock()  # one thread asks at a time, and the others queue behind it
        self.turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()
        self._making = threading.Lock()
        self._ledger: Ledger | None = None

    def ledger(self) -> Ledger:
        """Return the ledger: two of one process would each count half of its tasks."""
        with self._making:
            if self._ledger is None:
                self._ledger = Ledger()
            return self._ledger


_shared = _Shared()


def _in_child(shared: _Shared) -> None:
    shared.begin_anew()
    _inside.set(False)


renew_in_child(_shared, _in_child)


class reserve:  # noqa: N801 - read as a verb: with sm.reserve():
    """Wait until memory for one more task of this kind is free, and hold its place until the task ends.

    ``with sm.reserve():`` and ``async with sm.reserve():`` stand around the work, in the process that does it. All
    processes of one user under one memory limit share the places. The first task of a kind shows what such a task
    takes; then as many run as fit. One task always runs. Inside another reservation of the same task it does nothing.
    """

    def __init__(self, size: int | None = None, *, key: str | None = None, max_wait: float | None = None) -> None:
        """Prepare to wait; each ``with`` is one task.

        Args:
            size: bytes that the task takes, where that is known; what was measured counts where it is more.
            key: names the kind of task; None takes the line of the call.
            max_wait: seconds to wait at most; None waits for as long as it takes.

        Raises:
            ValueError: *size* or *max_wait* is negative.
        """
        if size is not None and size < 0:
            raise ValueError(f"size={size}; allowed are bytes from 0, or None")
        if max_wait is not None and not max_wait >= 0:
            raise ValueError(f"max_wait={max_wait}; allowed are seconds from 0, or None")
        caller = sys._getframe(1)
        self._name = f"{caller.f_code.co_filename}:{caller.f_lineno}" if key is None else key
        self._kind = zlib.crc32(self._name.encode()) or 1
        self._size = size or 0
        self._max_wait = max_wait
        self._index: int | None = None
        self._token: contextvars.Token[bool] | None = None
        self._ledger: Ledger | None = None

    def __enter__(self) -> Self:
        """Wait.

        Raises:
            MemoryWaitError: *max_wait* seconds have passed.
        """
        if not _inside.get():
            began = time.monotonic()
            if not _shared.turn.acquire(timeout=-1 if self._max_wait is None else self._max_wait):
                raise MemoryWaitError(self._name, time.monotonic() - began, _shared.ledger().limit.free_bytes())
            try:
                for pause in self._pauses(began):
                    time.sleep(pause)
            finally:
                _shared.turn.release()
        return self

    async def __aenter__(self) -> Self:
        """Wait, and leave the event loop to others meanwhile."""
        with importing:
            import asyncio  # 7 MB, which a waiting process of another kind does without
        if not _inside.get():
            began = time.monotonic()
            async with _shared.turns.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
                for pause in self._pauses(began):
                    await asyncio.sleep(pause)
        return self

    def __exit__(self, *_: object) -> None:
        """End the task: what it took is learned, and where memory is short, freed memory goes back to the kernel."""
        token, self._token = self._token, None
        if token is None or self._index is None or self._ledger is None:
            return
        _inside.reset(token)
        with self._ledger:
            is_short = self._ledger.leave(self._index)
        self._index = None
        if is_short:
            give_back()

    async def __aexit__(self, *_: object) -> None:
        """End the task."""
        self.__exit__()

    def _pauses(self, began: float) -> Iterator[float]:
        """Yield the seconds to wait before each further question, until the task is admitted."""
        self._ledger, pause, is_trimmed, is_said = _shared.ledger(), FIRST_PAUSE_SECONDS, False, False
        try:
            while not self._is_admitted(self._ledger):
                waited = time.monotonic() - began
                if self._max_wait is not None and waited >= self._max_wait:
                    raise MemoryWaitError(self._name, waited, self._ledger.limit.free_bytes())
                if waited >= SAID_SECONDS and not is_said:
                    is_said = True
                    free = self._ledger.limit.free_bytes() / 1e6
                    _log.info("a task of %s waits for memory; %.0f MB are free and partly promised", self._name, free)
                yield pause
                pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE_SECONDS)
                if pause == LONGEST_PAUSE_SECONDS and not is_trimmed:
                    is_trimmed = True
                    if self._ledger.limit.free_bytes() < self._ledger.limit.limit_bytes // 2:
                        give_back()  # what this process keeps may be what the others wait for
        except BaseException:
            self._give_up()
            raise

    def _is_admitted(self, ledger: Ledger) -> bool:
        with ledger:
            if self._index is None:
                self._index = ledger.take(self._kind)
            if self._index is None or not ledger.ask(self._index, self._size):
                return False
        self._token = _inside.set(True)
        return True

    def _give_up(self) -> None:
        if self._index is not None and self._token is None and self._ledger is not None:
            with self._ledger:
                self._ledger.drop(self._index)
            self._index = None


class bounded:  # noqa: N801 - a decorator
    """Wrap *fn* so that each call is a reservation: for pools, executors and ``datasets.map``. It can be pickled."""

    def __init__(self, fn: Callable[..., Any], size: int | None = None, *, max_wait: float | None = None) -> None:
        """Wrap *fn*; *size* and *max_wait* as for ``reserve``."""
        self._fn = fn
        self._size = size
        self._max_wait = max_wait
        functools.update_wrapper(self, fn)

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Call the function inside a reservation of its kind."""
        key = f"{self._fn.__module__}.{getattr(self._fn, '__qualname__', type(self._fn).__qualname__)}"
        with reserve(self._size, key=key, max_wait=self._max_wait):
            return self._fn(*args, **kwargs)

    def __reduce__(self) -> str | tuple[object, ...]:
        """Travel by name where a decorator put it in its module, else with the function."""
        name = getattr(self, "__qualname__", "")
        if getattr(sys.modules.get(self.__module__), name, None) is self:
            return name
        return functools.partial(bounded, max_wait=self._max_wait), (self._fn, self._size)


def wait_for_memory(size: int, *, max_wait: float | None = None) -> None:
    """Wait until *size* bytes are free, and hold nothing: for a producer whose items leave with somebody else.

    Raises:
        MemoryWaitError: *max_wait* seconds have passed.
    """
    limit, pause, began = _shared.ledger().limit, FIRST_PAUSE_SECONDS, time.monotonic()
    while (free := limit.free_bytes(size)) < size:
        waited = time.monotonic() - began
        if max_wait is not None and waited >= max_wait:
            raise MemoryWaitError(f"{size / 1e6:,.0f} MB", waited, free)
        time.sleep(pause)
        pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE_SECONDS)
        if pause == LONGEST_PAUSE_SECONDS:
            give_back()  # the feeder thread of a queue frees into an arena of its own, which keeps it


def give_back() -> None:
    """Have the allocators of this process give what they keep back to the kernel: 0.1 to 20 ms."""
    with importing:
        import ctypes  # only where memory is short
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
