"""Dask workers that pause under pressure of the container, not only of their own: never all of a host at once.

A status that is set from outside is undone by the worker's own memory manager within half a second, so the plugin
takes part in that manager's decision. Which worker of a host goes on is decided by a record lock on a side file: the
kernel takes it back from a worker that dies. Source: distributed 2026.8, ``WorkerMemoryManager``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from shm_monitor.errors import MissingDependencyError
from shm_monitor.integrations.host_semaphore import HostSemaphore
from shm_monitor.integrations.pressure import Pressure
from shm_monitor.schema import Level

try:
    from distributed import Status, WorkerPlugin
    from tornado.ioloop import PeriodicCallback
except ModuleNotFoundError as error:
    raise MissingDependencyError("shm_monitor.integrations.dask", "dask", "distributed") from error

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Worker

LOOK_MILLISECONDS = 100.0  # as often as distributed's own monitor


class PressurePlugin(WorkerPlugin):
    """``client.register_plugin(PressurePlugin())``: workers pause while it presses, and resume when it is calm.

    Paused workers finish what they run and begin nothing; their tasks wait, or are stolen by workers that go on.
    """

    name = "shm-monitor-pressure"
    idempotent = True

    def __init__(
        self, *, sampler: str | None = None, on: Level = Level.PRUNE, keep_running: int = 1, max_pause: float = 60.0
    ) -> None:
        """Prepare; each worker attaches for itself.

        Args:
            sampler: its name on every host; None: ``SHM_MONITOR_NAME`` there, else ``default``.
            on: the level from which on workers pause.
            keep_running: so many workers of a host go on whatever presses.
            max_pause: seconds after which a worker goes on until the next episode.
        """
        self._sampler = sampler
        self._on = on
        self._keep_running = keep_running
        self._max_pause = max_pause

    def setup(self, worker: Worker) -> None:
        """Take part in the decision of *worker*'s memory manager."""
        from shm_monitor.worker.attaching import attach

        reader = attach(self._sampler, timeout=0.0, required=False, watch=["memory"])
        self._guard = _Guard(
            worker,
            Pressure(reader, on=self._on),
            HostSemaphore(reader.name, "~dask", self._keep_running),
            max_pause=self._max_pause,
        )
        self._guard.begin()

    def teardown(self, worker: Worker) -> None:  # noqa: ARG002 - as its base
        """Leave the decision to the memory manager again."""
        self._guard.end()


class _Guard:
    """Stands before the decision of one worker."""

    def __init__(self, worker: Worker, pressure: Pressure, semaphore: HostSemaphore, *, max_pause: float) -> None:
        self._worker = worker
        self._pressure = pressure
        self._semaphore = semaphore
        self._max_pause = max_pause
        self._paused_at: float | None = None
        self._has_waited = False  # for as long as it may, in this episode
        self._original: Callable[[Any, int], None] | None = None
        self._own: PeriodicCallback | None = None

    def begin(self) -> None:
        manager = self._worker.memory_manager
        self._original = getattr(manager, "_maybe_pause_or_unpause", None)
        if self._original is not None and "memory_monitor" in self._worker.periodic_callbacks:
            manager._maybe_pause_or_unpause = self.decide
        else:  # a worker without a memory limit has no monitor of its own
            self._original = None
            self._own = PeriodicCallback(lambda: self.decide(self._worker, 0), LOOK_MILLISECONDS)
            self._own.start()

    def end(self) -> None:
        if self._own is not None:
            self._own.stop()
        if self._original is not None:
            self._worker.memory_manager._maybe_pause_or_unpause = self._original
        self._resume()
        self._semaphore.give_back()

    def decide(self, worker: Any, memory: int) -> None:
        """Pause, or leave the decision to the manager; called each 100 ms."""
        if self._must_pause():
            if worker.status == Status.running:
                self._paused_at = time.monotonic()
                worker.status = Status.paused
            return
        self._resume()
        if self._original is not None:
            self._original(worker, memory)

    def _must_pause(self) -> bool:
        if not self._pressure("pausing this worker"):
            self._has_waited = False
            self._semaphore.give_back()
            return False
        if self._paused_at is not None and time.monotonic() - self._paused_at > self._max_pause:
            self._has_waited = True
        return not self._has_waited and not self._semaphore.take()

    def _resume(self) -> None:
        if self._paused_at is not None:
            self._paused_at = None
            if self._worker.status == Status.paused:
                self._worker.status = Status.running
