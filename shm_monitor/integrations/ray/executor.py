"""Ray tasks as an executor of ``concurrent.futures``, so that what bounds any pool bounds them, too."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future, wait
from typing import TYPE_CHECKING, Any

from shm_monitor.forks import renew_in_child
from shm_monitor.integrations.ray.installed import ray

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")


class RayExecutor(Executor):
    """Each submit is one Ray task. Behind ``shm_monitor.BoundedExecutor`` no task starts that would not fit.

    The bound goes by the reader of one node: pin the tasks to it (``scheduling_strategy``), or have one executor for
    each node. Ray's futures cannot be cancelled once submitted, and ``shutdown`` leaves Ray running.
    """

    def __init__(self, **options: Any) -> None:
        """Submit tasks with *options* of ``ray.remote``: ``num_cpus``, ``max_retries``, ``scheduling_strategy`` ..."""
        self._call = ray.remote(**{"num_cpus": 1, **options})(_call)
        self._is_shut = False
        self._begin()
        renew_in_child(self, RayExecutor._begin)

    def _begin(self) -> None:
        """Know of no task: those of the parent do not end in a forked child."""
        self._lock = threading.Lock()
        self._running: set[Future[Any]] = set()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit *fn* as a task; a reference of Ray among its arguments comes as its value.

        Raises:
            RuntimeError: this executor was shut down.
        """
        with self._lock:
            if self._is_shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            future: Future[T] = self._call.remote(fn, *args, **kwargs).future()
            self._running.add(future)
        future.add_done_callback(self._ended)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - as its base
        """Take no more tasks; with *wait* return when those that run have ended."""
        with self._lock:
            self._is_shut = True
            running = set(self._running)
        if wait:
            _wait(running)

    def _ended(self, future: Future[Any]) -> None:
        with self._lock:
            self._running.discard(future)


_wait = wait  # the parameter of shutdown() has its name


def _call(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return fn(*args, **kwargs)
