"""Samplers that cost 10 ms to start: the real lock, segment and publisher, readings made of the sample number.

``python -m tests.support.light_sampler`` is a zygote: it has numpy loaded and forks one sampler per order, a line of
JSON on its standard input; each sampler reports on the shared standard output, one line.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from shm_monitor.errors import AlreadyRunningError, FencedError, MonitorError
from shm_monitor.sampler.kernel_support import NO_SUPPORT, KernelSupport, tried_support
from shm_monitor.sampler.publisher import Publisher
from shm_monitor.schema import Level
from shm_monitor.segment.lock import Lock
from tests.support.children import PYTHON
from tests.support.publishing import small_schema
from tests.support.surroundings import child_environment

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

LIMITS = ("memory", "cpu", "network", "gpu:0", "gpu-memory:0")
WAIT_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1


class Order(NamedTuple):
    """How a light sampler publishes: value i of sample n is n * (i + 1), so that a mixture shows.

    Args:
        name: of the sampler.
        interval_seconds: between two samples; 0 for as fast as it can.
        metric_count, limit_count, slot_count: the layout.
        by_kernel: whether the kernel marks its death, and ends it when it hangs.
        stale_after_seconds: when it counts as hung.
        pressed: the limits that press; the overall flag is always calm, so that both answers can be watched.
        at_ns: when to begin, on the monotonic clock.
        leak_bytes: how much memory to take with each sample and never give back.
    """

    name: str
    interval_seconds: float = 0.001
    metric_count: int = 8
    limit_count: int = 2
    slot_count: int = 64
    by_kernel: bool = True
    stale_after_seconds: float = 30.0
    pressed: tuple[str, ...] = ("cpu",)
    at_ns: int = 0
    leak_bytes: int = 0


class Started(NamedTuple):
    """What a light sampler says of its start; *error* is the name of an exception, or empty."""

    pid: int
    began_ns: int = 0
    live_ns: int = 0
    taken_over: bool = False
    head: int = 0
    epoch: int = 0
    error: str = ""
    message: str = ""
    holder_pid: int = 0


class LightSamplers:
    """The zygote, seen from a test."""

    def __init__(self) -> None:
        """Start the zygote; about 0.4 s."""
        self._process = subprocess.Popen(
            [*PYTHON, "-m", "tests.support.light_sampler"],
            env=child_environment(OPENBLAS_NUM_THREADS="1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.by_kernel = bool(self._line()["by_kernel"])

    def start(self, *orders: Order) -> list[Started]:
        """Start one sampler per order, all at once; return their reports in the order they came."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(orders).encode() + b"\n")
        return [Started(**self._line()) for _ in orders]

    def one(self, name: str, **options: Any) -> Started:
        """Start one sampler and return its report, which must be good."""
        started = self.start(Order(name, **options))[0]
        assert not started.error, started.message
        return started

    def close(self) -> None:
        """End the zygote, and with it every sampler that is left."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], WAIT_SECONDS)
        assert ready, "the light sampler said nothing"
        line: dict[str, Any] = json.loads(self._process.stdout.readline())
        return line


def end(pid: int, number: int = signal.SIGKILL) -> int:
    """Send signal *number* to *pid* and wait for its end; return the monotonic ns just before the signal."""
    fd = os.pidfd_open(pid)
    try:
        at_ns = time.monotonic_ns()
        os.kill(pid, number)
        ready, _, _ = select.select([fd], [], [], WAIT_SECONDS)
        assert ready, f"process {pid} did not end"
    finally:
        os.close(fd)
    return at_ns


def main() -> None:
    """Fork a sampler per order until standard input ends."""
    support = tried_support()
    _say({"by_kernel": support.ends_hang})
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        for fields in json.loads(line):
            order = Order(*fields)
            if os.fork() == 0:
                _live(order, support if order.by_kernel else NO_SUPPORT)


def _live(order: Order, support: KernelSupport) -> None:
    """Be a sampler, then exit; never return."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        stop: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
        time.sleep(max(order.at_ns - time.monotonic_ns(), 0) / 1e9)
        try:
            _publish(order, stop, support)
        except MonitorError as error:
            holder = error.holder_pid if isinstance(error, AlreadyRunningError) else 0
            _say(
                {"pid": os.getpid(), "error": type(error).__name__, "message": str(error) or "-", "holder_pid": holder}
            )
    finally:
        os._exit(0)


def _publish(order: Order, stop: list[int], support: KernelSupport) -> None:
    lock = Lock(order.name)
    try:
        publisher = Publisher(
            order.name,
            small_schema(order.metric_count, order.limit_count),
            slot_count=order.slot_count,
            interval_ns=int(max(order.interval_seconds, 1e-6) * 1e9),
            stale_after_ns=int(order.stale_after_seconds * 1e9),
            support=support,
        )
        try:
            _loop(publisher, order, stop)
        finally:
            publisher.close()
    finally:
        lock.release()


def _loop(publisher: Publisher, order: Order, stop: list[int]) -> None:
    import numpy as np

    pressing = [int(Level.PRUNE) << 32 if name in order.pressed else 0 for name in LIMITS[: order.limit_count]]
    verdicts = np.array(pressing, np.uint64)
    factors = np.arange(1, order.metric_count + 1, dtype=np.float64)
    began_ns = time.monotonic_ns()
    first = True
    leaked = []
    while not stop:
        number = publisher.head + 1
        record = publisher.record
        record["values"][0] = number * factors
        record["means"][0], record["maxima"][0], record["slopes"][0] = number, number + 0.5, -number
        record["limits"][0] = [0.0, number * 7.0]
        try:
            publisher.publish(mono_ns=time.monotonic_ns(), realtime_ns=time.time_ns(), verdicts=verdicts)
        except FencedError:
            return
        if first:
            first = False
            _say(
                {
                    "pid": os.getpid(),
                    "began_ns": began_ns,
                    "live_ns": time.monotonic_ns(),
                    "taken_over": publisher.taken_over,
                    "head": number,
                    "epoch": publisher.epoch,
                }
            )
        leaked.append(b"x" * order.leak_bytes)
        _rest(order.interval_seconds, stop)


def _rest(seconds: float, stop: list[int]) -> None:
    """Sleep for *seconds*, or until told to *stop*: a signal does not end a sleep."""
    end_seconds = time.monotonic() + seconds
    while not stop and (left := end_seconds - time.monotonic()) > 0.0:
        time.sleep(min(left, 0.05))


def _say(line: dict[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    main()
