"""One rank of four over gloo that steps with and without an agreed verdict, in turns; for ``bench.integrations``."""

from __future__ import annotations

import itertools
import statistics
import time

from torch import distributed

import shm_monitor as sm

TURNS, ROUNDS_PER_TURN = 30, 2


def verdicts(rank: int, name: str, every: str, step_seconds: str) -> tuple[float, float, float]:
    """Return the wall and CPU seconds that the verdict takes of a step, and the ratio of steps with and without it."""
    steps, seconds = ROUNDS_PER_TURN * int(every), float(step_seconds)
    distributed.init_process_group("gloo")
    asked = sm.AgreedVerdict(sm.attach(name, watch=["memory"]), every=int(every))
    numbers = itertools.count()
    wall, cpu, ratios = [], [], []
    for _ in range(TURNS):
        began = time.perf_counter()
        for _ in range(steps):
            time.sleep(seconds)
        plain = time.perf_counter() - began
        wall_of_turn = cpu_of_turn = 0.0
        began = time.perf_counter()
        for _ in range(steps):
            time.sleep(seconds)
            before, cpu_before = time.perf_counter(), time.thread_time()
            asked(next(numbers))
            wall_of_turn += time.perf_counter() - before
            cpu_of_turn += time.thread_time() - cpu_before
        ratios.append((time.perf_counter() - began) / plain)
        wall.append(wall_of_turn / steps)
        cpu.append(cpu_of_turn / steps)
    asked.close()
    distributed.barrier()
    distributed.destroy_process_group()
    return statistics.median(wall), statistics.median(cpu), statistics.median(ratios)
