"""64 tasks of 60 MB on a pool of 8 processes, in 512 MB."""

from __future__ import annotations

import functools
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np

import shm_monitor as sm
from bench.survival.scenario import Contender, Run, Scenario
from bench.survival.stage import BROKEN_STATUS, MIB, module, run

GROUP_MB = 512
TASKS, TASK_MB, TASK_SECONDS, PROCESSES = 64, 60, 0.3, 8
FIXED_LIMITS = (3, 4, 5, 6)


def work(limit: str) -> None:
    """Run all tasks: unbounded, bounded by memory, or by a fixed limit."""
    began = time.monotonic()
    executor = ProcessPoolExecutor(PROCESSES)
    try:
        if limit == "plain":
            with executor:
                done = sum(executor.map(hold, range(TASKS)))
        else:
            by_memory = limit == "bounded"
            reader = sm.attach(watch=["memory"]) if by_memory else sm.attach("nobody", timeout=0.0, required=False)
            with sm.BoundedExecutor(executor, limit=PROCESSES if by_memory else int(limit), reader=reader) as bounded:
                done = sum(bounded.map(hold, range(TASKS)))
    except BrokenProcessPool:
        sys.exit(BROKEN_STATUS)
    print(done, time.monotonic() - began, flush=True)


def hold(number: int) -> int:
    """Hold TASK_MB for TASK_SECONDS."""
    block = np.ones(TASK_MB * MIB // 8)
    time.sleep(TASK_SECONDS)
    return int(block[number])


def tasks(limit: str) -> Run:
    """Run all tasks in a cgroup."""
    return run(module(__name__, limit), group_mb=GROUP_MB)


SCENARIO = Scenario(
    order=3,
    title="A pool",
    text=f"""
{TASKS} tasks of {TASK_MB} MB and {TASK_SECONDS} s on {PROCESSES} processes in {GROUP_MB} MB; the best fixed limit is
the best number of tasks at once.""",
    contenders=(
        Contender("plain ProcessPoolExecutor", functools.partial(tasks, "plain"), "plain"),
        Contender("BoundedExecutor", functools.partial(tasks, "bounded"), "ours"),
        *(Contender(f"{limit} at once", functools.partial(tasks, str(limit)), "fixed") for limit in FIXED_LIMITS),
    ),
)

if __name__ == "__main__":
    work(sys.argv[1])
