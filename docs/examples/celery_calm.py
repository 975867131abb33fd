"""Celery: no task of any process of the pool begins while memory is short (pip install celery)."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.signals import task_prerun

import shm_monitor as sm

app = Celery("celery_calm", broker="memory://", backend="cache+memory://")
app.conf.worker_prefetch_multiplier = 1  # what waits here is done by another worker sooner
app.conf.task_acks_late = True


@task_prerun.connect
def wait_for_memory(**_: Any) -> None:
    """Runs in the process that is to do the task, before the task takes anything."""
    sm.calm(max_wait=60.0)


@app.task
def work(seed: int) -> int:
    """Take some memory for a moment."""
    return len(bytearray(1_000_000)) + seed


if __name__ == "__main__":  # else: celery -A celery_calm worker
    print(sum(work.apply(args=(seed,)).get() for seed in range(10)))
