"""Tell functions of a worker when an episode begins, gets worse or ends: one daemon thread per reader."""

from __future__ import annotations

import logging
import os
import threading
import time

from shm_monitor.errors import MonitorError
from shm_monitor.light import TYPE_CHECKING
from shm_monitor.worker.episode import episode
from shm_monitor.worker.waiting import SLICE_SECONDS, wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from shm_monitor.worker.attachment import Attachment
    from shm_monitor.worker.episode import Episode

    Callback = Callable[[Episode | None], object]

_log = logging.getLogger("shm_monitor")


class Noticer:
    """The callbacks of one reader, and the thread that calls them, which ends with the reader or the last of them."""

    def __init__(self, attachment: Attachment) -> None:
        """Watch what *attachment* watches, once there is a callback."""
        self._attachment = attachment
        self._callbacks: dict[object, Callback] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._runs = False
        self._last: Episode | None = None

    def add(self, callback: Callback) -> Callable[[], None]:
        """Call *callback* at each change from now on; return the function that ends that."""
        key = object()
        if self._pid != os.getpid():  # a forked child has no thread, and maybe a lock that nobody will release
            self._pid, self._runs, self._lock, self._callbacks = os.getpid(), False, threading.Lock(), {}
        with self._lock:
            self._callbacks[key] = callback
            if not self._runs:
                self._runs = True
                self._last = episode(self._attachment)
                threading.Thread(target=self._run, name="shm-monitor changes", daemon=True).start()

        def stop() -> None:
            self._callbacks.pop(key, None)

        return stop

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._callbacks or self._attachment.is_closed:
                    self._runs = False
                    return
            self._look()
            try:
                wait(self._attachment, SLICE_SECONDS)
            except MonitorError:  # on_stale="raise" speaks to who asks, not to who is told
                time.sleep(SLICE_SECONDS)

    def _look(self) -> None:
        now, last = episode(self._attachment), self._last
        self._last = now
        if (now and (now.number, now.level)) == (last and (last.number, last.level)):
            return
        for callback in list(self._callbacks.values()):
            try:
                callback(now)
            except Exception:  # noqa: BLE001 - whatever a user's function raises, the next change must be told
                _log.exception("a function told of pressure raised")
