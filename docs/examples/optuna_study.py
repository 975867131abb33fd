"""Trials that wait for room, and come back when there was none (pip install "shm-monitor[optuna]")."""

import optuna

import shm_monitor as sm
from shm_monitor.integrations.optuna import admitted, requeue

reader = sm.attach(watch=["memory"], required=False)


def objective(trial: optuna.Trial) -> float:
    """Train a little, and give up as soon as the memory is not there."""
    x = trial.suggest_float("x", -10, 10)
    for _ in range(10):
        if reader.level() == sm.Level.CRITICAL:
            requeue(trial)  # ends this trial without a verdict; its parameters come back
    return (x - 2) ** 2


study = optuna.create_study()
study.optimize(admitted(objective, jobs=4, max_wait=60.0), n_trials=20, n_jobs=4)
print(f"best: {study.best_params}")
