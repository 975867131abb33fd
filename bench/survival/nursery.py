"""A process that has torch, Lightning and transformers loaded, and forks the training jobs of a scenario.

Loading them takes 10 s and 400 MB, which is more time than the job itself takes. ``python -m bench.survival.nursery
ADDRESS`` serves until its standard input ends; with ``JOB SIZE`` behind it, it asks the one that serves: the job then
runs in the cgroup of who asked, as the first victim of the kernel, with the environment of who asked.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import NamedTuple

from tests.support.cgroups import top_of


class Order(NamedTuple):
    """A job of ``training_jobs.JOBS``, how its batches are cut, and where it runs."""

    job: str
    size_of: str
    procs: str
    sampler: str


def ask(address: str, job: str, size_of: str) -> int:
    """Have *job* run; print its result and seconds, and return its exit status."""
    with Client(address, "AF_UNIX") as nursery:
        nursery.send(Order(job, size_of, str(own_cgroup() / "cgroup.procs"), os.environ["SHM_MONITOR_NAME"]))
        said, status = nursery.recv()
    print(said)
    return int(status) if status >= 0 else 128 - status


def own_cgroup() -> Path:
    """Return the directory of the memory cgroup that this process is in. Source: cgroups(7)."""
    top = top_of("memory")
    assert top is not None
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    wanted = "memory" if top[0] == 1 else ""
    return top[1] / next(path for _, names, path in lines if wanted in names.split(",")).lstrip("/")


def serve(address: str) -> None:
    """Load everything, and run what is asked for, one job at a time."""
    from bench.survival import training_jobs

    training_jobs.quiet()
    with Listener(address, "AF_UNIX") as listener:
        threading.Thread(target=_exit_with_input, daemon=True).start()
        print("ready", flush=True)
        while True:
            with listener.accept() as who:
                who.send(_run(who.recv()))


def _exit_with_input() -> None:
    while os.read(0, 4096):  # not sys.stdin, whose lock a forked job would inherit
        pass
    os._exit(0)


def _run(order: Order) -> tuple[str, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = _job(order, writing)
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    return said, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _job(order: Order, writing: int) -> int:
    """Enter the cgroup, train, and say what came of it; return the exit status."""
    from bench.survival.training_jobs import JOBS

    Path(order.procs).write_text("0")
    Path("/proc/self/oom_score_adj").write_text("1000")
    os.environ["SHM_MONITOR_NAME"] = order.sampler
    os.dup2(2, 1)  # what a framework prints is no result
    began = time.monotonic()
    loss = JOBS[order.job](order.size_of)
    os.write(writing, f"{loss!r} {time.monotonic() - began}".encode())
    return 0


def main(arguments: list[str]) -> int:
    """Serve, or ask."""
    if len(arguments) == 3:
        return ask(*arguments)
    serve(arguments[0])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
