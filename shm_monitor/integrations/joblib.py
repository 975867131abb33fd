"""joblib's Parallel that begins a task only when there is room for it: what joblib issue 1095 asks for since 2020."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from shm_monitor.acting.wait_for_calm import throttle
from shm_monitor.errors import MissingDependencyError

try:
    import joblib
except ModuleNotFoundError as error:
    raise MissingDependencyError("shm_monitor.integrations.joblib", "joblib", "joblib") from error

if TYPE_CHECKING:
    from shm_monitor.worker.reader import Reader


class Parallel(joblib.Parallel):
    """``Parallel(n_jobs=8)(delayed(work)(path) for path in paths)``, as ever; under pressure one task at a time.

    Tasks are dispatched one by one and no earlier than a worker is free for them, so that a wait before a task is a
    wait before its memory. That costs throughput where tasks are far shorter than a millisecond.
    """

    def __init__(
        self,
        n_jobs: int | None = None,
        *,
        reader: Reader | None = None,
        max_wait: float = 60.0,
        min_running: int = 1,
        **options: Any,
    ) -> None:
        """Run as ``joblib.Parallel`` does.

        Args:
            n_jobs: of ``joblib.Parallel``; so are the options.
            reader: None asks the default sampler, as ``attach()`` does.
            max_wait: seconds that a task waits at most.
            min_running: so many tasks of a call never wait.
            options: of ``joblib.Parallel``; ``batch_size`` and ``pre_dispatch`` are ours.
        """
        taken = {"batch_size", "pre_dispatch"} & options.keys()
        if taken:
            raise TypeError(f"{', '.join(sorted(taken))}: decided here (1, n_jobs); joblib.Parallel has them free")
        super().__init__(n_jobs, batch_size=1, pre_dispatch="n_jobs", **options)
        self._waits: dict[str, Any] = {"reader": reader, "max_wait": max_wait, "min_running": min_running}

    def __call__(self, iterable: Iterable[Any]) -> Any:
        """Run the tasks of *iterable*; return what ``joblib.Parallel`` does."""
        return super().__call__(iter(throttle(iterable, **self._waits)))
