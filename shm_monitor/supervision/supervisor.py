"""Keep one sampler alive: start it, restart it when it dies, kill it when it hangs."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING

from shm_monitor.errors import AlreadyRunningError, MissingDependencyError, MonitorError, SamplerError
from shm_monitor.interpreter import interpreter, same_modules
from shm_monitor.segment import layout
from shm_monitor.segment.flags import DIED
from shm_monitor.segment.removal import remove_left_behind
from shm_monitor.segment.status import STALE, beat_age_ns, state_of
from shm_monitor.segment.view import view_of
from shm_monitor.supervision.handshake import Order, Report, decode_report, error_of, send_order
from shm_monitor.supervision.keeper import Keeper, Next, close_pipes
from shm_monitor.supervision.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shm_monitor.segment.view import View

_log = logging.getLogger("shm_monitor.supervisor")

START_SECONDS = 30.0  # NVML may take seconds without persistence mode; more is a hang
POLL_SECONDS = 0.1
END_SECONDS = 1.0  # for a process whose flags are marked: it gives its memory back, and can then be waited for
SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


class Supervisor(Keeper):
    """One sampler process at a time, watched by a daemon thread."""

    def __init__(
        self,
        order: Order,
        *,
        on_event: Callable[[str], None] | None = None,
        on_superseded: Callable[[], None] | None = None,
        backoff_seconds: Sequence[float] | None = None,
    ) -> None:
        """Prepare; ``start`` begins.

        Args:
            order: what each sampler is told.
            on_event: called with one line per event, beside the log.
            on_superseded: called, and no sampler started any more, when another process has got the name between two
                samplers of this one; without it, tried again and again.
            backoff_seconds: see ``Keeper``.
        """
        super().__init__("shm-monitor-supervisor", backoff_seconds=backoff_seconds)
        self._order = order
        self._name = order.config.name
        self._on_event = on_event
        self._on_superseded = on_superseded
        self._started = threading.Event()
        self._reloading = False
        self._left_behind = False  # what a sampler that did not end by itself could not remove
        self._failure: MonitorError | None = None

    def start(self, timeout: float = START_SECONDS) -> None:
        """Start the first sampler and wait until its first sample can be read.

        Raises:
            AlreadyRunningError: another sampler has the name.
            NoSpaceError: shared memory is full.
            SamplerError: it ended, or took longer than *timeout* seconds.
            InterpreterError: no Python is known that could run it.
            MissingDependencyError: the packages of the sampler are not installed.
        """
        if interpreter(self._order.config.python) == sys.executable:
            _check_installed()
        try:
            self._thread.start()
        except RuntimeError as error:
            raise refusal(error, "the supervisor cannot be started") or error from error
        if not self._started.wait(timeout):
            self.stop()
            raise SamplerError(
                f"the sampler {self._name!r} had no sample in {timeout:.0f} s; its log on stderr says why"
            )
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def stop(self) -> None:
        """End the sampler; one that was killed, just now or before a pause, leaves nothing either."""
        super().stop()
        if self._left_behind:
            self._left_behind = False
            remove_left_behind(self._name)

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
            close_pipes(process)

    def _keep(self) -> None:
        super()._keep()
        if not self._started.is_set():  # stopped by another thread than the one in start()
            self._failure = SamplerError(f"the sampler {self._name!r} was stopped before its first sample")
            self._started.set()

    def _live(self, pause: float) -> Next:
        try:
            self._one_life(pause)
        except MonitorError as error:
            if self._stopping.is_set():
                return Next.NOTHING  # a sampler that is stopped while it starts has nothing to report
            if not self._started.is_set():
                self._failure = error
                self._started.set()
                return Next.NOTHING
            if isinstance(error, AlreadyRunningError) and self._on_superseded is not None:
                self._tell(f"another process has taken over: {error}")
                self._on_superseded()
                return Next.NOTHING
            self._tell(f"sampler did not start: {error}", logging.WARNING)
        except Exception as error:
            if self._started.is_set():
                raise
            self._failure = SamplerError(f"the sampler {self._name!r} cannot be started: {error!r}")
            self._failure.__cause__ = error
            self._started.set()
            return Next.NOTHING
        if self._reloading:
            self._reloading = False
            return Next.AT_ONCE
        return Next.AFTER_A_PAUSE

    def _tell_pause(self, pause: float) -> None:
        self._tell(f"starting a new sampler in {pause:.0f} s")

    def _one_life(self, pause: float) -> None:
        """Start a sampler after *pause* seconds, and stay with it until it ends or ``stop`` is called.

        The process is made before the pause, so that it loads its modules meanwhile.
        """
        process = self._process = _spawn(interpreter(self._order.config.python))
        had_sample = False
        try:
            if self._stopping.wait(pause):
                return
            _send(process, self._order)
            report = self._report_of(process)
            had_sample = True
            self._tell(f"sampler {report.pid} started{' and took over' if report.taken_over else ''}")
            self.restarts += self._started.is_set()
            self._started.set()
            self._watch(process)
        finally:
            self._end(process)
            if had_sample:
                self._left_behind = process.returncode != 0

    def _report_of(self, process: subprocess.Popen[bytes]) -> Report:
        """Return the report of a good start, or raise what the sampler reports."""
        if process.stdout is None:
            raise SamplerError("the sampler has no standard output")
        awaited = select.poll()  # no thread, which there may be none left of, and descriptors above 1,023 as well
        awaited.register(process.stdout, select.POLLIN)
        if not awaited.poll(START_SECONDS * 1e3):
            process.kill()
        line = process.stdout.readline()
        if not line:
            raise SamplerError(f"the sampler {_how_early(process)} before its first sample; its log on stderr says why")
        report = decode_report(line)
        if report.error:
            raise error_of(report)
        return report

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Return when *process* ended or a stop is asked for; kill it when it hangs."""
        view: View | None = None
        while not self._stopping.wait(POLL_SECONDS):
            view = view or view_of(self._name)
            if process.poll() is not None:
                return self._tell_end(process, view)
            if view is not None and state_of(view) == STALE and not _is_ending(process, view):
                age = beat_age_ns(view) / 1e9
                process.kill()
                return self._tell(
                    f"sampler {process.pid} hung, its last turn was {age:.1f} s ago: killed", logging.WARNING
                )
        return None

    def _tell_end(self, process: subprocess.Popen[bytes], view: View | None) -> None:
        if self._reloading:
            return self._tell(f"sampler {process.pid} makes room for one with the configuration of now")
        return self._tell(f"sampler {process.pid} {_how(process.returncode, view)}", logging.WARNING)

    def _tell(self, line: str, level: int = logging.INFO) -> None:
        _log.log(level, "%s: %s", self._name, line)
        if self._on_event is not None:
            self._on_event(line)


def _check_installed() -> None:
    for package in ("numpy", "psutil"):  # without numba the kernels run interpreted
        if find_spec(package) is None:
            raise MissingDependencyError("the sampler", "sampler", package)


def _spawn(python: str) -> subprocess.Popen[bytes]:
    """Start a sampler by *python*."""
    try:
        return subprocess.Popen(
            [python, "-P", "-m", "shm_monitor.sampler"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # a buffer has a lock, which a fork may copy while it is held
            env={**os.environ, **SINGLE_THREADED, **same_modules()},
        )
    except OSError as error:  # out of processes, memory or descriptors
        doing = "the sampler process cannot be started"
        raise refusal(error, doing) or SamplerError(f"{doing}: {error}") from error


def _send(process: subprocess.Popen[bytes], order: Order) -> None:
    if process.stdin is None:
        raise SamplerError("the sampler has no standard input")
    with contextlib.suppress(BrokenPipeError):  # it ended at once: its missing report says so
        send_order(process.stdin.fileno(), order)


def _is_ending(process: subprocess.Popen[bytes], view: View) -> bool:
    """Say whether *process* is on its way out: the kernel marks its flags some time before it can be waited for."""
    if not view.flag(0) & DIED:
        return False
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    return process.poll() is not None


def _how(returncode: int, view: View | None) -> str:
    """Say how a sampler ended; one whose last turn was long ago was ended by the kernel, for this process or not."""
    if view is not None and returncode == -signal.SIGKILL:
        age_ns = beat_age_ns(view)
        if age_ns >= view.word(layout.STALE_AFTER_OFFSET):
            return f"hung or was stopped, its last turn was {age_ns / 1e9:.1f} s ago: killed by the kernel's timer"
    return _ended(returncode)


def _how_early(process: subprocess.Popen[bytes]) -> str:
    """Say how a sampler ended that has closed its standard output."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    return "ended" if process.returncode is None else _ended(process.returncode)


def _ended(returncode: int) -> str:
    if returncode >= 0:
        return f"ended with status {returncode}"
    return f"ended by signal {-returncode} ({signal.strsignal(-returncode) or 'unknown'})"
