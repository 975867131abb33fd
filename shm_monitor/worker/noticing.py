"""Call functions of a worker when an episode begins, gets worse or ends: one daemon thread per reader.

A function that is added during an episode has missed its beginning, as a restarted worker has: it is called, too.
"""

from __future__ import annotations

import logging
import threading
import time

from shm_monitor.errors import MonitorError
from shm_monitor.forks import renew_in_child
from shm_monitor.light import TYPE_CHECKING
from shm_monitor.worker.episode import episode
from shm_monitor.worker.waiting import SLICE_SECONDS, wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from shm_monitor.worker.attachment import Attachment
    from shm_monitor.worker.episode import Episode

    Callback = Callable[[Episode | None], object]

_log = logging.getLogger("shm_monitor")


class _Listener:
    """One callback, and the state that it was called with last: calm before the first call."""

    def __init__(self, callback: Callback) -> None:
        self._callback = callback
        self._last: tuple[int, str] | None = None

    def look(self, now: Episode | None) -> None:
        """Call the function unless it knows of the state *now*."""
        state = now and (now.number, now.level)
        if state == self._last:
            return
        self._last = state
        try:
            self._callback(now)
        except Exception:  # noqa: BLE001 - whatever a user's function raises, the next change must reach the others
            _log.exception("a function that is called under pressure raised")


class Noticer:
    """The callbacks of one reader, and the thread that calls them, which ends with the reader or the last of them."""

    def __init__(self, attachment: Attachment) -> None:
        """Watch what *attachment* watches, once there is a callback."""
        self._attachment = attachment
        self._listeners: dict[object, _Listener] = {}
        self._lock = threading.Lock()
        self._runs = False
        renew_in_child(self, Noticer._renew)

    def _renew(self) -> None:
        """Begin without callbacks: a forked child has no thread that would call them."""
        self._lock, self._runs, self._listeners = threading.Lock(), False, {}

    def add(self, callback: Callback) -> Callable[[], None]:
        """Call *callback* with the open episode, if there is one, and at each change; return what ends the calls."""
        key = object()
        with self._lock:
            self._listeners[key] = _Listener(callback)
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name="shm-monitor changes", daemon=True).start()

        def stop() -> None:
            self._listeners.pop(key, None)

        return stop

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._listeners or self._attachment.is_closed:
                    self._runs = False
                    return
            now = episode(self._attachment)
            for listener in list(self._listeners.values()):
                listener.look(now)
            try:
                wait(self._attachment, SLICE_SECONDS)
            except MonitorError:  # of a reader with on_stale="raise": meant for who asks, not for this thread
                time.sleep(SLICE_SECONDS)
