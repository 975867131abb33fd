"""Trials that start only when there is room for them, and that come back when there was none.

Pressure says nothing of a trial's parameters, so no trial is ever pruned for it: samplers learn from pruned trials. A
trial waits before it starts, and one that gives up is queued again with the same parameters.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shm_monitor.acting.governor import Governor
from shm_monitor.errors import MissingDependencyError
from shm_monitor.forks import renew_in_child
from shm_monitor.integrations.pressure import Pressure
from shm_monitor.schema import Level

try:
    import optuna
except ModuleNotFoundError as error:
    raise MissingDependencyError("shm_monitor.integrations.optuna", "optuna", "optuna") from error

if TYPE_CHECKING:
    from shm_monitor.worker.reader import Reader

_log = logging.getLogger("shm_monitor")

Objective = Callable[[Any], Any]
REQUEUED_FROM = "shm_monitor:requeued_from"  # user attributes of trials
REQUEUES = "shm_monitor:requeues"
POLL_SECONDS = 0.2


class Requeued(Exception):
    """This trial has given up, and another with its parameters waits in the queue; raised by ``requeue``."""


def requeue(trial: optuna.Trial, *, max_requeues: int = 3) -> None:
    """Give this trial up and queue another with the same parameters.

    The trial ends as FAIL, from which no sampler learns. The one in the queue is the next of ``optimize``; if this was
    the last of its ``n_trials``, it waits for the next call of ``optimize``.

    Args:
        trial: the running one.
        max_requeues: how often the same parameters may come back; then the trial goes on.

    Raises:
        Requeued: unless the parameters have come back often enough; ``Admitted`` understands it.
    """
    before = int(trial.user_attrs.get(REQUEUES, 0))
    if before >= max_requeues:
        _log.warning("trial %d has been queued %d times and goes on under pressure", trial.number, before)
        return
    attributes = {REQUEUED_FROM: trial.number, REQUEUES: before + 1}
    trial.study.enqueue_trial(trial.params, user_attrs=attributes)
    raise Requeued(f"trial {trial.number} was queued again")


class Admitted:
    """An objective whose trials wait for room: ``study.optimize(Admitted(objective), n_jobs=4)``.

    As many trials run at once as the governor says, and none begins while it presses, but one always may. A trial that
    waits has asked for no parameters yet.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        jobs: int | Governor = 64,
        max_wait: float = 300.0,
        min_running: int = 1,
        reader: Reader | None = None,
        on: Level = Level.PRUNE,
    ) -> None:
        """Guard *objective*.

        Args:
            objective: as ``Study.optimize`` takes it.
            jobs: how many at once at most; a ``Governor`` learns how many fit.
            max_wait: seconds after which a trial begins whatever presses.
            min_running: so many may always run.
            reader: None asks the default sampler, as ``attach()`` does.
            on: the level from which on trials wait.
        """
        self._objective = objective
        self._jobs = jobs
        self._max_wait = max_wait
        self._min_running = min_running
        self._pressure = Pressure(reader, on=on)
        self._begin()
        renew_in_child(self, Admitted._begin)

    def _begin(self) -> None:
        """Count anew: no trial of the parent runs in a forked child."""
        self._running = 0
        self._changed = threading.Condition()

    def __call__(self, trial: optuna.Trial) -> Any:
        """Wait for room, then return what the objective says; NaN, which Optuna takes for FAIL, for a requeued one."""
        self._enter()
        try:
            return self._objective(trial)
        except Requeued as told:
            _log.info("%s", told)
            return math.nan
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _enter(self) -> None:
        deadline = time.monotonic() + self._max_wait
        with self._changed:
            while not self._has_room() and time.monotonic() < deadline:
                self._changed.wait(min(POLL_SECONDS, max(deadline - time.monotonic(), 0.0)))
            self._running += 1

    def _has_room(self) -> bool:
        if self._running < self._min_running:
            return True
        most = self._jobs.step() if isinstance(self._jobs, Governor) else self._jobs
        return self._running < most and not self._pressure("trials wait")


def admitted(objective: Objective, **options: Any) -> Admitted:
    """Return *objective* with its trials waiting for room; options as ``Admitted``."""
    return Admitted(objective, **options)
