"""One look as a peer takes it, in turns with ours in the same process. Usage: python -m bench.peers.looking PEER

A process for each peer: their libraries are large, and some bring event loops and threads. Standard output: one line of
JSON, ``Looked``; exit status 3, and why on standard error, where the peer is not installed.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import psutil

import shm_monitor
from bench.bench_reader import moving, read
from bench.measure import count_for, timer_of
from bench.stage import NaivePsutil, new_name, published
from shm_monitor.schema import Level

ROUNDS = 40
NOT_INSTALLED = 3
Look = Callable[[], object]


class Looked(msgspec.Struct, frozen=True):
    """Medians over the rounds: CPU seconds of one look and of ours; of the ratio, look / ours, of each round."""

    seconds: float
    should_prune_seconds: float
    snapshot_seconds: float
    times_should_prune: float
    times_snapshot: float


@contextlib.contextmanager
def psutil_memory() -> Iterator[Look]:
    yield psutil.virtual_memory


@contextlib.contextmanager
def psutil_everything() -> Iterator[Look]:
    yield NaivePsutil().read


@contextlib.contextmanager
def glances_memory() -> Iterator[Look]:
    glances = importlib.import_module("glances.api").GlancesAPI()
    yield lambda: glances.mem["percent"] > 90.0


@contextlib.contextmanager
def dask_monitor() -> Iterator[Look]:
    import distributed

    options: dict[str, Any] = {"n_workers": 1, "threads_per_worker": 1, "memory_limit": "1GiB", "processes": False}
    with distributed.LocalCluster(dashboard_address=None, silence_logs=logging.ERROR, **options) as cluster:
        worker = cluster.workers[0]
        look = worker.memory_manager.memory_monitor

        def finish() -> None:
            with contextlib.suppress(StopIteration):  # it waits for nothing while nothing is to be spilled
                look(worker).send(None)

        yield finish


@contextlib.contextmanager
def ray_monitor() -> Iterator[Look]:
    yield importlib.import_module("ray._private.memory_monitor").MemoryMonitor().get_memory_usage


@contextlib.contextmanager
def nvitop_devices() -> Iterator[Look]:
    nvitop = importlib.import_module("nvitop")
    logging.getLogger("nvitop").setLevel(
        logging.CRITICAL
    )  # a traceback for each question that a stand-in does not know
    devices = nvitop.Device.all()
    assert devices

    def look() -> None:
        for device in devices:
            device.as_snapshot()

    yield look


PEERS: dict[str, Callable[[], contextlib.AbstractContextManager[Look]]] = {
    made.__name__: made
    for made in (psutil_memory, psutil_everything, glances_memory, dask_monitor, ray_monitor, nvitop_devices)
}


def main(arguments: list[str]) -> int:
    """Measure the peer *arguments[0]*; return the exit status."""
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(new_name())
        sys.argv = sys.argv[:1]  # Glances reads it
        try:
            look = stack.enter_context(PEERS[arguments[0]]())
        except ImportError as error:
            print(f"{error.name} is not installed", file=sys.stderr)
            return NOT_INSTALLED
        reader = stack.enter_context(read(name, everything=True))
        move, snapshot = stack.enter_context(moving(name)), reader.snapshot
        marked = stack.enter_context(new_name())
        stack.enter_context(published(marked, Level.PRUNE))
        should_prune = stack.enter_context(shm_monitor.attach(marked)).should_prune
        calls = (look, should_prune, lambda: (move(), snapshot()))
        timers = [(timed, count_for(timed)) for timed in (timer_of(call, time.thread_time) for call in calls)]
        seen = [[timed(count) for timed, count in timers] for _ in range(ROUNDS)]
    medians = [statistics.median(column) for column in zip(*seen, strict=True)]
    ratios = [statistics.median(one[0] / one[ours] for one in seen) for ours in (1, 2)]
    print(msgspec.json.encode(Looked(*medians, *ratios)).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
