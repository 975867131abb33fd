"""What a benchmark stands on: a publisher or a whole sampler in this process, or a sampler process of its own."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Self

import msgspec
import numpy as np
import psutil

from shm_monitor import collectors
from shm_monitor.collectors.sources import source_for
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.kernels import of_one_sample
from shm_monitor.sampler.kernel_support import KernelSupport
from shm_monitor.sampler.loop import Sampler
from shm_monitor.sampler.publisher import Publisher
from shm_monitor.schema import TRACK_FIELDS, Level, Limit, Metric, Schema
from shm_monitor.segment import side_files
from shm_monitor.segment.lock import Lock
from shm_monitor.supervision.handshake import Order, decode_report, send_order
from shm_monitor.supervision.supervisor import SINGLE_THREADED

FOR_EVER_NS = 2**62  # a publisher that nobody calls hung, however long a benchmark takes
COMPILE_SECONDS = 240.0  # on a cold cache and a busy machine
COUNTERS = ("cpu", "memory", "stall", "disk")  # with the sampler's own, about 64 metrics


@contextlib.contextmanager
def new_name() -> Iterator[str]:
    """Give a sampler name that nobody else uses; remove its files afterwards."""
    name = f"bench-{uuid.uuid4().hex[:12]}"
    try:
        yield name
    finally:
        for file in side_files.files_of(name):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file.path)


@contextlib.contextmanager
def published(name: str, *levels: Level, by_kernel: bool = True) -> Iterator[None]:
    """Have one sample under *name* whose limits (memory, cpu, network, gpu-memory:0) stand at *levels*, else at OK."""
    metric = Metric("memory", "usage_bytes", "bytes", "a number", "a benchmark", rolled=True)
    limits = tuple(Limit(limit, metric.name, "bytes", "") for limit in ("memory", "cpu", "network", "gpu-memory:0"))
    given = [*levels, *[Level.OK] * (len(limits) - len(levels))]
    lock = Lock(name)
    publisher = Publisher(
        name,
        Schema((metric,), limits, ("memory",), {}, TRACK_FIELDS),
        slot_count=8,
        interval_ns=10**9,
        stale_after_ns=FOR_EVER_NS,
        support=KernelSupport(marks_death=by_kernel, ends_hang=by_kernel),
    )
    try:
        publisher.record["verdict"] = max(given) << 32
        verdicts = np.array([level << 32 for level in given], np.uint64)
        publisher.publish(mono_ns=time.monotonic_ns(), realtime_ns=time.time_ns(), verdicts=verdicts)
        yield
    finally:
        publisher.close()
        lock.release()


@contextlib.contextmanager
def sampler_here(
    config: ResourceConfig,
    *,
    only: Sequence[str] | None = None,
    owner_pid: int | None = None,
    clock: Callable[[], int] = time.monotonic_ns,
) -> Iterator[Sampler]:
    """Have a sampler of the real sources in this process; the caller takes the samples.

    Args:
        config: its name must not be in use.
        only: the collectors by name; None for all.
        owner_pid: whose tree of workers is measured, by a thread of its own; None for none.
        clock: of the samples, in nanoseconds.
    """
    chosen = collectors.discover(only, owner_pid=owner_pid)
    lock = Lock(config.name)
    order = Order(config=config, owner_pid=os.getpid())
    sources = [source_for(one, config.check_interval, clock) for one in chosen]
    sampler = Sampler(order, sources, clock=clock)
    try:
        yield sampler
    finally:
        sampler.close()
        lock.release()


def compile_kernels() -> None:
    """Have the samplers of this process run compiled kernels from now on."""
    for kernel in of_one_sample():
        kernel.compile()


class Turns:
    """A clock that moves by one interval when told to, so that 60 s of history take no minute to fill."""

    def __init__(self, interval_ns: int) -> None:
        self._interval_ns = interval_ns
        self._now_ns = time.monotonic_ns()

    def __call__(self) -> int:
        return self._now_ns

    def before(self, sample: Callable[[], None]) -> Callable[[], None]:
        """Return *sample*, at the next turn each time."""

        def at_the_next_turn() -> None:
            self._now_ns += self._interval_ns
            sample()

        return at_the_next_turn


class NaivePsutil:
    """What a worker would write to learn the same, without scopes, stalls, per-process readings or a decision."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def read(self) -> None:
        """Ask psutil for each group once."""
        psutil.cpu_times_percent()
        psutil.cpu_percent(percpu=True)
        psutil.getloadavg()
        psutil.virtual_memory()
        psutil.swap_memory()
        psutil.disk_usage("/dev/shm" if os.path.isdir("/dev/shm") else "/")
        psutil.disk_io_counters(perdisk=True)
        psutil.net_io_counters(pernic=True)
        with self._process.oneshot():
            self._process.cpu_times()
            self._process.memory_info()


class SamplerProcess:
    """One real sampler process, started as the supervisor starts it. Ends it when left as a context manager.

    Attributes:
        first_sample_seconds: from the start of the process to its report that the first sample is readable.
    """

    def __init__(
        self,
        config: ResourceConfig,
        *,
        force_clock: bool = False,
        environ: Mapping[str, str] | None = None,
        only: Sequence[str] = (),
    ) -> None:
        """Start it, with the collectors *only* (none: all), and wait for its first sample."""
        config = msgspec.structs.replace(config, collectors=tuple(only) or None)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "shm_monitor.sampler"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**here(), **SINGLE_THREADED, **(environ or {})},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = Order(config=config, owner_pid=os.getpid(), force_clock=force_clock)
        send_order(self._process.stdin.fileno(), order)
        report = decode_report(self._process.stdout.readline())
        self.first_sample_seconds = time.perf_counter() - began
        assert not report.error, report.message

    @property
    def pid(self) -> int:
        """The pid of the sampler."""
        return self._process.pid

    def cpu_seconds(self) -> float:
        """Return the CPU that it has used, all its threads, to the nanosecond. Source: clock_getcpuclockid(3)."""
        return time.clock_gettime(~self.pid << 3 | 2)

    def memory_bytes(self, field: str) -> int:
        """Return *field* (``VmRSS``, ``VmHWM``) of its ``/proc/PID/status``."""
        return memory_bytes(self.pid, field)

    def private_bytes(self) -> int:
        """Return the memory that only it has."""
        return private_bytes(self.pid)

    def await_compiled(self) -> None:
        """Wait until it has logged that its kernels are compiled."""
        deadline = time.monotonic() + COMPILE_SECONDS
        while b"kernels compiled" not in os.pread(self._log.fileno(), 2**16, 0):
            assert time.monotonic() < deadline, f"no compiled kernels after {COMPILE_SECONDS} s"
            time.sleep(0.1)

    def kill(self) -> None:
        """Send SIGKILL, without waiting."""
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> resource.struct_rusage:
        """Stop it if it still runs; return what it used from its start to its end."""
        os.kill(self.pid, signal.SIGTERM)  # not Popen.terminate(), which would take the rusage of one that has ended
        usage = wait4(self._process)
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            if pipe is not None:
                pipe.close()
        return usage

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self.end()


def wait4(process: subprocess.Popen[bytes]) -> resource.struct_rusage:
    """Wait for the end of *process* and return what it used."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage


def here() -> dict[str, str]:
    """Return the environment of a Python process that finds what this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def private_bytes(pid: int) -> int:
    """Return the memory that only process *pid* has and that the kernel cannot drop. Source: proc_pid_smaps_rollup(5).

    Not the clean pages of libraries: whether they are private depends on who else runs the same ones, and the kernel
    drops them before it kills anybody.
    """
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))


def memory_bytes(pid: int, field: str) -> int:
    """Return *field* of ``/proc/PID/status``, such as VmRSS. Not ru_maxrss: a child inherits that of its parent."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
