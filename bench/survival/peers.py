"""The jobs of the scenario ``peers``: the same map on a pool, on Dask and on Ray, each alone and with ours in front.

``python -m bench.survival.peers FRAMEWORK plain|ours map|leak|idle DIRECTORY``. What is started and what has ended is
written to files in DIRECTORY by the tasks themselves, so that a task that was run twice is seen whoever ran it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from pathlib import Path

import numpy as np

import shm_monitor as sm

MIB = 1 << 20
TASKS, TASK_MB, TASK_SECONDS, SLOTS = 64, 60, 1.0, 16
LEAK_MB = 8
DASK_WORKERS = 2
CONTAINER_MB = 1024
STORE_BYTES = 80 << 20  # Ray wants at least 75 MB; the results here are small
_leaked: list[np.ndarray] = []


def hold(number: int, directory: str, leak_mb: int) -> int:
    """Hold TASK_MB for TASK_SECONDS, and leave *leak_mb* behind in this process."""
    _note(directory, "started", number)
    block = np.ones(TASK_MB * MIB // 8)
    if leak_mb:
        _leaked.append(np.ones(leak_mb * MIB // 8))
    time.sleep(TASK_SECONDS)
    _note(directory, "ended", number)
    return int(block[number])


def _note(directory: str, what: str, number: int) -> None:
    with (Path(directory) / what).open("a") as file:  # O_APPEND: a line is whole
        file.write(f"{number}\n")


def warm(seconds: float) -> int:
    """Stay long enough that every process has started, with what tasks import."""
    time.sleep(seconds)
    return os.getpid()


@contextlib.contextmanager
def pool() -> Iterator[Executor]:
    """Start SLOTS processes, forked as always on Linux."""
    with ProcessPoolExecutor(SLOTS) as executor:
        list(executor.map(warm, [0.2] * SLOTS))
        yield executor


@contextlib.contextmanager
def dask() -> Iterator[Executor]:
    """Start workers that share the container, with threads: a process per slot would not fit."""
    from distributed import Client, LocalCluster

    from shm_monitor.integrations.dask import PressurePlugin

    threads, limit = SLOTS // DASK_WORKERS, CONTAINER_MB // DASK_WORKERS * MIB
    with (
        LocalCluster(DASK_WORKERS, threads, memory_limit=limit, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        if sys.argv[2] == "ours":
            client.register_plugin(PressurePlugin())
        executor = client.get_executor(pure=False)
        list(executor.map(warm, [0.2] * SLOTS))
        yield executor


@contextlib.contextmanager
def ray() -> Iterator[Executor]:
    """Start Ray with its own memory monitor, and a worker per slot."""
    import ray

    from shm_monitor.integrations.ray import RayExecutor

    ray.init(
        num_cpus=SLOTS,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _temp_dir=str(Path(sys.argv[4]) / "ray"),
    )
    executor, began = RayExecutor(num_cpus=1), time.monotonic()
    while len(set(executor.map(warm, [1.0] * SLOTS))) < SLOTS and time.monotonic() - began < 120:
        pass
    yield executor


FRAMEWORKS: dict[str, Callable[[], contextlib.AbstractContextManager[Executor]]] = {
    "pool": pool,
    "dask": dask,
    "ray": ray,
}


def work(framework: str, who: str, kind: str, directory: str) -> None:
    """Run the map, and say how many tasks came back, in which time, and how many were started twice."""
    with FRAMEWORKS[framework]() as executor:
        if kind == "idle":
            print(0, 0.0, f"idle={_held_mb()}", flush=True)
            _end()
        began = time.monotonic()
        reader = sm.attach(watch=["memory"])
        chosen = sm.BoundedExecutor(executor, limit=SLOTS, reader=reader) if who == "ours" else executor
        done = sum(_run(chosen, directory, LEAK_MB if kind == "leak" else 0))
        seconds = time.monotonic() - began
        started = Counter((Path(directory) / "started").read_text().split())
        twice = sum(count > 1 for count in started.values())
        print(done, seconds, f"done={done} twice={twice} runs={started.total()}", flush=True)
        _end()


def _run(executor: Executor, directory: str, leak_mb: int) -> Iterator[int]:
    futures: list[Future[int]] = []
    for number in range(TASKS):
        with contextlib.suppress(Exception):  # a broken pool takes no more
            futures.append(executor.submit(hold, number, directory, leak_mb))
    for future in futures:
        with contextlib.suppress(Exception):  # lost: counted by what is missing
            future.result()
            yield 1


def _end() -> None:
    """End the whole container, this process last: a cluster that is shut down in order takes seconds.

    What outlives the driver would keep its standard output open, and whoever reads that would wait for it.
    """
    for pid in (_top() / "cgroup.procs").read_text().split():
        if int(pid) != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    os._exit(0)


def _held_mb() -> int:
    """Return what this container holds and cannot give back, as it sees itself."""
    stat = dict(line.split() for line in (_top() / "memory.stat").read_text().splitlines())
    held = ("total_rss", "total_mapped_file") if "total_rss" in stat else ("anon", "file_mapped")
    return sum(int(stat[key]) for key in held) // MIB


def _top() -> Path:
    """Return the directory in which this container sees its own memory, by cgroups v1 or v2."""
    own = Path("/sys/fs/cgroup/memory")
    return own if own.exists() else own.parent


if __name__ == "__main__":
    work(*sys.argv[1:5])
