"""Keep one sampler alive: start it, restart it when it dies, kill it when it hangs."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

from shm_monitor.errors import MissingDependencyError, MonitorError, SamplerError, SegmentError
from shm_monitor.segment.status import STALE, beat_age_ns, state_of
from shm_monitor.segment.view import View
from shm_monitor.supervision.handshake import Order, Report, decode_report, error_of, send_order

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("shm_monitor.supervisor")

BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
HEALTHY_SECONDS = 60.0  # after which the next death counts as the first again
START_SECONDS = 30.0  # NVML may take seconds without persistence mode; more is a hang
STOP_SECONDS = 1.5  # then SIGKILL, so that a stop takes less than 2 s
POLL_SECONDS = 0.1
SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


class Supervisor:
    """One sampler process at a time, watched by a daemon thread.

    Attributes:
        restarts: how often a sampler was started after the first.
    """

    def __init__(self, order: Order, *, on_event: Callable[[str], None] | None = None) -> None:
        """Prepare; :meth:`start` begins.

        Args:
            order: what each sampler is told.
            on_event: called with one line per event, beside the log.
        """
        self.restarts = 0
        self._order = order
        self._name = order.config.name
        self._on_event = on_event
        self._stop = threading.Event()
        self._started = threading.Event()
        self._reloading = False
        self._failure: MonitorError | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="shm-monitor-supervisor", daemon=True)

    def start(self, timeout: float = START_SECONDS) -> None:
        """Start the first sampler and wait until its first sample can be read.

        Raises:
            AlreadyRunningError: another sampler has the name.
            NoSpaceError: shared memory is full.
            SamplerError: it ended, or took longer than *timeout* seconds.
            MissingDependencyError: the packages of the sampler are not installed.
        """
        _check_installed()
        self._thread.start()
        if not self._started.wait(timeout):
            self.stop()
            raise SamplerError(
                f"the sampler {self._name!r} had no sample in {timeout:.0f} s; its log on stderr says why"
            )
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    @property
    def pid(self) -> int | None:
        """The pid of the sampler that runs now, if one does."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def stop(self) -> None:
        """Stop the sampler cleanly, within 2 s, and wait for the end of the thread."""
        self._stop.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        if self._thread.is_alive() and process is not None:
            process.kill()
            self._thread.join()

    def reload(self, order: Order) -> None:
        """Replace the sampler by one with another *order* of the same name, which takes over in place.

        The history and the readers stay: the old one is killed, not stopped, so that its segment remains.
        """
        self._order = order
        self._reloading = True
        process = self._process
        if process is not None:
            process.kill()

    def forget(self) -> None:
        """Let go without stopping anything: this is a forked child, and the sampler is its parent's.

        Takes no lock: the supervisor's thread, which is not here, may have held it at the fork.
        """
        process, self._process = self._process, None
        if process is not None:
            process.returncode = 0  # not this process's child: never wait for it, never warn about it
            _close_pipes(process)

    def _run(self) -> None:
        failures, pause = 0, 0.0
        while not self._stop.is_set():
            began = time.monotonic() + pause
            try:
                self._one_life(pause)
            except MonitorError as error:
                if not self._started.is_set():
                    self._failure = error
                    self._started.set()
                    return
                self._tell(f"sampler did not start: {error}")
            if self._stop.is_set():
                return
            if self._reloading:
                self._reloading, failures, pause = False, 0, 0.0
                continue
            failures = 1 if time.monotonic() - began > HEALTHY_SECONDS else failures + 1
            pause = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1]
            self._tell(f"starting a new sampler in {pause:.0f} s")

    def _one_life(self, pause: float) -> None:
        """Start a sampler after *pause* seconds, and stay with it until it ends or :meth:`stop` is called.

        The process is made before the pause, so that it loads numba meanwhile: that takes it as long again.
        """
        process = self._process = _spawn()
        try:
            if self._stop.wait(pause):
                return
            _send(process, self._order)
            report = self._report_of(process)
            self._tell(f"sampler {report.pid} started{' and took over' if report.taken_over else ''}")
            self.restarts += self._started.is_set()
            self._started.set()
            self._watch(process)
        finally:
            _end(process)

    def _report_of(self, process: subprocess.Popen[bytes]) -> Report:
        """Return the report of a good start, or raise what the sampler reports."""
        timer = threading.Timer(START_SECONDS, process.kill)
        timer.daemon = True
        timer.start()
        try:
            report = decode_report(process.stdout.readline() if process.stdout else b"")
        finally:
            timer.cancel()
        if report.error:
            raise error_of(report)
        return report

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Return when *process* ended or a stop is asked for; kill it when it hangs."""
        view: View | None = None
        while not self._stop.wait(POLL_SECONDS):
            if process.poll() is not None:
                return self._tell(f"sampler {process.pid} ended {_how(process.returncode)}")
            view = view or _view_of(self._name)
            if view is not None and state_of(view) == STALE and process.poll() is None:
                age = beat_age_ns(view) / 1e9
                process.kill()
                return self._tell(f"sampler {process.pid} hangs, its last turn was {age:.1f} s ago: killed")
        return None

    def _tell(self, line: str) -> None:
        _log.info("%s: %s", self._name, line)
        if self._on_event is not None:
            self._on_event(line)


def _check_installed() -> None:
    for package in ("numpy", "numba", "psutil"):
        if find_spec(package) is None:
            raise MissingDependencyError("the sampler", "sampler", package)


def _spawn() -> subprocess.Popen[bytes]:
    """Start a sampler that finds the same modules as this process, and nothing in the working directory."""
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "shm_monitor.sampler"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # a buffer has a lock, which a fork may copy while it is held
            env={**os.environ, **SINGLE_THREADED, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    except OSError as error:  # out of processes, memory or descriptors
        raise SamplerError(f"the sampler process cannot be started: {error}") from error


def _send(process: subprocess.Popen[bytes], order: Order) -> None:
    if process.stdin is None:
        raise SamplerError("the sampler has no standard input")
    with contextlib.suppress(BrokenPipeError):  # it ended at once: its missing report says so
        send_order(process.stdin.fileno(), order)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop *process* if it still runs: by SIGTERM, then by SIGKILL; close its pipes."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    _close_pipes(process)


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _view_of(name: str) -> View | None:
    try:
        return View(name)
    except SegmentError:
        return None


def _how(returncode: int) -> str:
    return f"by signal {-returncode}" if returncode < 0 else f"with status {returncode}"
