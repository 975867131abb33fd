"""Trials wait for room, come back when there was none, and no sampler of Optuna learns from pressure."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("optuna", reason="optuna is not installed")

import optuna
from optuna.trial import TrialState

import shm_monitor as sm
from shm_monitor.integrations.optuna import REQUEUED_FROM, Admitted, admitted, requeue

if TYPE_CHECKING:
    from tests.support.pressed import Driven

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Counter:
    """An objective that knows how many of it ran at once."""

    def __init__(self) -> None:
        self.running = self.peak = 0
        self._lock = threading.Lock()

    def __call__(self, trial: Any) -> float:
        with self._lock:
            self.running += 1
            self.peak = max(self.peak, self.running)
        time.sleep(0.05)
        with self._lock:
            self.running -= 1
        return float(trial.suggest_float("x", 0, 1))


def study() -> Any:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))


def test_no_more_trials_run_at_once_than_may(driven: Driven) -> None:
    counter = Counter()

    study().optimize(admitted(counter, jobs=2, reader=driven.reader), n_trials=12, n_jobs=4)

    assert counter.peak <= 2


def test_under_pressure_one_trial_runs_at_a_time_and_all_are_done(driven: Driven) -> None:
    counter = Counter()
    driven.press()
    made = study()

    made.optimize(admitted(counter, reader=driven.reader), n_trials=6, n_jobs=4)

    assert counter.peak == 1
    assert {trial.state for trial in made.trials} == {TrialState.COMPLETE}


class Stepped(sm.Governor):
    """A governor that says what a test tells it to."""

    now = 1

    def step(self) -> int:
        return self.now


def test_as_many_trials_run_at_once_as_the_governor_says(driven: Driven) -> None:
    """One at a time; after three trials three, of which none goes on before all three are there."""
    governor = Stepped(4, reader=driven.reader)
    together, lock = threading.Barrier(3), threading.Lock()
    running: set[int] = set()
    alone, peaks = [], []

    def objective(trial: Any) -> float:
        with lock:
            running.add(trial.number)
            peaks.append(len(running))
            is_alone = governor.now == 1
        if not is_alone:
            together.wait(60)
        with lock:
            if is_alone:
                alone.append(len(running))
                governor.now = 3 if len(alone) == 3 else 1
            running.remove(trial.number)
        return float(trial.suggest_float("x", 0, 1))

    made = study()
    made.optimize(admitted(objective, jobs=governor, reader=driven.reader), n_trials=3 + 2 * 3, n_jobs=4)

    assert alone == [1, 1, 1]
    assert max(peaks) == 3
    assert {trial.state for trial in made.trials} == {TrialState.COMPLETE}


def test_a_trial_waits_no_longer_than_it_may(driven: Driven) -> None:
    together = threading.Barrier(4)  # broken, with an error, unless all four run at once
    driven.press()

    def objective(trial: Any) -> float:
        together.wait(30)
        return float(trial.suggest_float("x", 0, 1))

    study().optimize(admitted(objective, max_wait=0.0, reader=driven.reader), n_trials=4, n_jobs=4)

    assert not together.broken


def test_a_requeued_trial_comes_back_with_its_parameters_and_finishes(driven: Driven) -> None:
    tried: list[float] = []

    def objective(trial: Any) -> float:
        x = trial.suggest_float("x", 0, 1)
        tried.append(x)
        if len(tried) == 1:
            requeue(trial)
        return float(x)

    made = study()
    made.optimize(admitted(objective, reader=driven.reader), n_trials=3)

    assert tried[0] == tried[1]
    assert [trial.state for trial in made.trials] == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert made.trials[1].user_attrs[REQUEUED_FROM] == 0


def test_parameters_that_came_back_often_enough_go_on(driven: Driven) -> None:
    def objective(trial: Any) -> float:
        x = trial.suggest_float("x", 0, 1)
        requeue(trial, max_requeues=2)
        return float(x)

    made = study()
    made.optimize(admitted(objective, reader=driven.reader), n_trials=3)

    states = [trial.state for trial in made.trials]
    assert states == [TrialState.FAIL, TrialState.FAIL, TrialState.COMPLETE]


def test_an_objective_that_raises_makes_room_again(driven: Driven) -> None:
    def objective(trial: Any) -> float:
        raise ValueError("not of ours")

    guarded = Admitted(objective, jobs=1, reader=driven.reader)
    for _ in range(2):
        with pytest.raises(ValueError, match="not of ours"):
            study().optimize(guarded, n_trials=1)
