"""Does a job that acts on pressure finish where a plain one is killed, and at what price? Writes docs/survival.md.

``python -m bench.survival [--runs N]``, as root: real memory cgroups of 512 MB without swap, real processes, a real
sampler beside them at 10 Hz. Jobs say what they have done on standard output; a killed one says less.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np

import shm_monitor as sm
from tests.support.load_cgroup import memory_group, sampler
from tests.support.surroundings import child_environment

MIB = 1 << 20
GROUP_MB = 512
RATES_PERCENT = (2, 11, 24, 49)  # of the cgroup, per second
NEIGHBOUR_MB = 300
ROW_BYTES = MIB // 2
FULL_ROWS = 256
BATCHES = 60
FIXED_ROWS = (32, 96)
TASKS, TASK_MB, TASK_SECONDS, PROCESSES = 64, 60, 0.3, 8
FIXED_TASKS = (4, 5, 6)
JOB_SECONDS = 120


class Run(NamedTuple):
    """How one job ended: killed or not, its result, and the seconds that its work took."""

    finished: bool
    result: str
    seconds: float


def train(size_of: str, rate: float) -> None:
    """Train on whole batches in slices: of a fixed number of rows, or as a governor says."""
    del rate
    micro = sm.MicroBatch(FULL_ROWS, reader=sm.attach(watch=["memory"])) if size_of == "governor" else None
    total, began = 0, time.monotonic()
    for number in range(BATCHES):
        rows = np.arange(FULL_ROWS) + number
        if micro:
            total += sum(_step(part) for (part,), _, _ in micro.split(rows))
        else:
            fixed = int(size_of)
            total += sum(_step(rows[at : at + fixed]) for at in range(0, FULL_ROWS, fixed))
    print(total, time.monotonic() - began, flush=True)


def _step(rows: np.ndarray) -> int:
    """Take two arrays of ROW_BYTES per row, as a forward and a backward pass would."""
    forward = np.repeat(rows, ROW_BYTES // 8).reshape(len(rows), -1)
    return int((forward * 3).sum())


def pool(size_of: str, rate: float) -> None:
    """Run tasks that hold memory for a while."""
    del rate
    began = time.monotonic()
    executor = ProcessPoolExecutor(PROCESSES)
    try:
        if size_of == "governor":
            with sm.BoundedExecutor(executor, limit=PROCESSES, reader=sm.attach(watch=["memory"])) as bounded:
                done = sum(bounded.map(_hold, range(TASKS)))
        elif size_of == "plain":
            with executor:
                done = sum(executor.map(_hold, range(TASKS)))
        else:
            with sm.BoundedExecutor(executor, limit=int(size_of), reader=_nobody()) as bounded:
                done = sum(bounded.map(_hold, range(TASKS)))
    except BrokenProcessPool:
        sys.exit(137)
    print(done, time.monotonic() - began, flush=True)


def _nobody() -> sm.Reader:
    return sm.attach("survival-nobody", timeout=0.0, required=False)


def _hold(number: int) -> int:
    block = np.ones(TASK_MB * MIB // 8)
    time.sleep(TASK_SECONDS)
    return int(block[number])


def neighbour(size_of: str, rate: float) -> None:
    """Grow at *rate* percent of the cgroup per second to NEIGHBOUR_MB, and stay. The kernel takes the job first."""
    del size_of
    held: list[np.ndarray] = []
    mb_per_second = rate / 100 * GROUP_MB
    began, first = time.monotonic(), max(NEIGHBOUR_MB - 6 * mb_per_second, 0.0)
    while True:
        wanted = min(first + (time.monotonic() - began) * mb_per_second, NEIGHBOUR_MB)
        while len(held) < wanted:
            held.append(np.ones(MIB // 8))
        time.sleep(0.01)


ROLES = {"train": train, "pool": pool, "neighbour": neighbour}


def run(role: str, size_of: str, rate: float, *, with_neighbour: bool) -> Run:
    """Run one job in a cgroup of its own, with a sampler that looks at it."""
    with memory_group(GROUP_MB) as group:
        settings = {"scope": group.name, "check_interval": 0.1, "observation_period": 2.0}
        with sampler(**settings) as manager:

            def start(name: str, size: str) -> subprocess.Popen[str]:
                first_victim = "echo 1000 > /proc/self/oom_score_adj && " if name != "neighbour" else ""
                enter = f'{first_victim}echo $$ > {group.path}/cgroup.procs && exec "$0" "$@"'
                program = [sys.executable, "-P", "-m", "bench.survival", "--role", name, size, str(rate)]
                environment = child_environment(SHM_MONITOR_NAME=manager.name, OPENBLAS_NUM_THREADS="1")
                return subprocess.Popen(
                    ["/bin/sh", "-c", enter, *program],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    env=environment,
                )

            others = [start("neighbour", "-")] if with_neighbour else []
            job = start(role, size_of)
            try:
                said = job.communicate(timeout=JOB_SECONDS)[0].split()
            except subprocess.TimeoutExpired:
                said = []
            finally:
                for one in (job, *others):
                    one.kill()
                    one.communicate()
    finished = job.returncode == 0 and len(said) == 2
    return Run(finished, said[0] if finished else "", float(said[1]) if finished else float("nan"))


def row(label: str, runs: list[Run], best_seconds: float = float("nan")) -> str:
    """Return one line of a table."""
    finished = [one for one in runs if one.finished]
    seconds = statistics.median(one.seconds for one in finished) if finished else float("nan")
    same = "-" if not finished else "yes" if len({one.result for one in finished}) == 1 else "NO"
    shown = f"{seconds:.1f} s" if finished else "-"
    work = f"{100 * best_seconds / seconds:.0f} %" if best_seconds == best_seconds and finished else "-"
    return f"| {label} | {len(finished)} of {len(runs)} | {shown} | {work} | {same} |"


HEAD = "| | finished | median time | work of the best fixed size | same result |\n|---|---|---|---|---|"


def best(role: str, sizes: tuple[int, ...], rate: float, *, with_neighbour: bool) -> tuple[int, float]:
    """Return the fixed size that finishes soonest, and its seconds; found by search, for it knows the future."""
    tried = {size: run(role, str(size), rate, with_neighbour=with_neighbour) for size in sizes}
    seconds, size = min((one.seconds, size) for size, one in tried.items() if one.finished)
    return size, seconds


def report(count: int, rates: tuple[int, ...]) -> str:
    """Run everything *count* times; return the page."""
    parts = [INTRO.format(count=count, cores=os.cpu_count())]
    size, seconds = best("train", FIXED_ROWS, 49, with_neighbour=True)
    parts += [f"## A growing neighbour\n\n{TRAIN}The best fixed size is {size} rows, {seconds:.1f} s.\n\n{HEAD}"]
    for rate in rates:
        for label, size_of in (("plain", str(FULL_ROWS)), ("governor", "governor")):
            runs = [run("train", size_of, rate, with_neighbour=True) for _ in range(count)]
            parts[-1] += "\n" + row(f"{label}, {rate} %/s", runs, seconds)
    size, seconds = best("pool", FIXED_TASKS, 0, with_neighbour=False)
    parts += [f"## A pool\n\n{POOL}The best fixed limit is {size}, {seconds:.1f} s.\n\n{HEAD}"]
    for label, size_of in (("plain ProcessPoolExecutor", "plain"), ("BoundedExecutor", "governor")):
        runs = [run("pool", size_of, 0, with_neighbour=False) for _ in range(count)]
        parts[-1] += "\n" + row(label, runs, seconds)
    return "\n\n".join(parts) + "\n"


INTRO = """# Survival

Written by `python -m bench.survival`: real memory cgroups of 512 MB without swap, {count} runs of each row, on {cores}
cores. "plain" does not ask; the best fixed size was found by search, which no job can do beforehand."""
TRAIN = f"""A numpy loop over {BATCHES} batches of {FULL_ROWS} rows of 1 MB, while a neighbour in the same cgroup grows
to {NEIGHBOUR_MB} MB and stays. """
POOL = f"""{TASKS} tasks of {TASK_MB} MB and {TASK_SECONDS} s on {PROCESSES} processes. """


def main() -> None:
    """Run one role, or everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--role", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--rates", type=int, nargs="*", default=RATES_PERCENT)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "survival.md")
    given = parser.parse_args()
    if given.role:
        role, size_of, rate = given.role
        return ROLES[role](size_of, float(rate))
    given.out.write_text(report(given.runs, tuple(given.rates)), encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
