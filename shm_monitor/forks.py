"""What a fork copies while other threads run: their locks, held for ever, and modules that are half imported.

``renew_in_child`` has an object made anew in each forked child. ``importing`` surrounds every import that a worker does
inside a function: a fork waits until it is done.
"""

from __future__ import annotations

import os
from _thread import RLock, get_ident  # the module threading takes 2 ms, which a worker that only asks never needs

from shm_monitor.light import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from typing import TypeVar

    T = TypeVar("T")

# A fork waits no longer than this: a thread that imports may itself wait for the one that forks.
LONGEST_IMPORT_SECONDS = 5.0

_renewals: MutableMapping[object, Callable[[object], object]] | None = None  # with weak keys, once there is one


def renew_in_child(one: T, renew: Callable[[T], object]) -> None:
    """Have ``renew(one)`` called in each forked child for as long as *one* exists; a module may be one.

    In the order of the calls; it must take none of the locks that *one* had before.
    """
    global _renewals  # noqa: PLW0603 - the hooks of a process are as global
    with importing:
        if _renewals is None:
            from weakref import WeakKeyDictionary

            _renewals = WeakKeyDictionary()
    _renewals[one] = renew  # type: ignore[assignment] # it is called with the key alone


class _Importing:
    """A lock that one thread may take again; held across a fork, so that no other thread is within it."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._forking: set[int] = set()  # threads that hold it for their fork

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def before_fork(self) -> None:
        if self._lock.acquire(timeout=LONGEST_IMPORT_SECONDS):
            self._forking.add(get_ident())

    def after_fork(self) -> None:
        if get_ident() in self._forking:
            self._forking.discard(get_ident())
            self._lock.release()

    def after_fork_in_child(self) -> None:
        is_held = get_ident() in self._forking
        self.after_fork()
        self._forking.clear()
        if not is_held:
            self._lock = RLock()


importing = _Importing()


def _in_child() -> None:
    importing.after_fork_in_child()
    for one, renew in list((_renewals or {}).items()):
        renew(one)


os.register_at_fork(before=importing.before_fork, after_in_parent=importing.after_fork, after_in_child=_in_child)
