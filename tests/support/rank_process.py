"""One rank of a job that asks at each step, and says what it was told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import shm_monitor as sm

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

    from shm_monitor.acting.ranks import HostRank

Told = tuple[int, list[int], list[bool], float]


def run(rank: HostRank, number: int, name: str, steps: int, step_seconds: float, every: int, told: Queue[Told]) -> None:
    """Ask *steps* times; put the rank, what was agreed and what this rank saw at each, and the seconds per question."""
    reader = sm.attach(name, timeout=30.0)
    verdict = sm.AgreedVerdict(reader, rank, every=every)
    agreed, seen, asking = [], [], 0.0
    for step in range(steps):
        seen.append(reader.should_prune())
        began = time.perf_counter()
        agreed.append(int(verdict(step)))
        asking += time.perf_counter() - began
        time.sleep(step_seconds * (1 + number % 2))  # ranks are never equally fast
    verdict.close()
    told.put((number, agreed, seen, asking / steps))
