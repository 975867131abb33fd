"""A job: tasks that hold memory, mapped over a ``multiprocessing.Pool`` by ``imap``, ``throttled`` or ``bounded``.

``python -m tests.support.mapped_tasks HOW METHOD`` prints how many are done, and in how many seconds. A worker that is
killed makes ``imap`` wait for ever.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from typing import TYPE_CHECKING

import shm_monitor as sm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.pool import Pool

MIB = 1 << 20
TASKS, TASK_MB, TASK_SECONDS, PROCESSES = 32, 100, 0.4, 8


def hold(number: int) -> int:
    """Hold TASK_MB for TASK_SECONDS; return 1."""
    block = b"x" * (TASK_MB * MIB)
    time.sleep(TASK_SECONDS)
    return len(block) // (TASK_MB * MIB) + 0 * number


def results(how: str, pool: Pool) -> Iterator[int]:
    if how == "bounded":
        return sm.bounded_map(pool, hold, range(TASKS), ordered=False)
    numbers = range(TASKS)
    return pool.imap_unordered(hold, sm.throttle(numbers) if how == "throttled" else numbers)


if __name__ == "__main__":
    began = time.monotonic()
    with multiprocessing.get_context(sys.argv[2]).Pool(PROCESSES) as workers:
        print(sum(results(sys.argv[1], workers)), time.monotonic() - began, flush=True)
