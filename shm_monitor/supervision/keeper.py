"""Keep one process alive: pauses that grow from death to death, and an end that waits for nothing that stands still."""

from __future__ import annotations

import contextlib
import enum
import logging
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
HEALTHY_SECONDS = 60.0  # after which the next death counts as the first again
FROM_A_TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)  # they reach all its processes; the owner decides
STOP_SECONDS = 1.5  # then SIGKILL for what stands still, so that its stop takes less than 2 s
BUSY_STOP_SECONDS = 9.0  # then SIGKILL for what still computes: on a busy machine an end of 0.2 s of CPU takes longer
KILLED_SECONDS = 0.4  # for a killed process to be gone; one that is frozen stays until it is thawed

_log = logging.getLogger("shm_monitor.supervision")


class Next(enum.Enum):
    """What follows the life of a process."""

    AFTER_A_PAUSE = enum.auto()
    AT_ONCE = enum.auto()
    NOTHING = enum.auto()


class Keeper(ABC):
    """One process at a time, watched by a daemon thread; a subclass says what one life is.

    Attributes:
        restarts: how often a process was started after the first.
    """

    def __init__(
        self,
        thread_name: str,
        *,
        backoff_seconds: Sequence[float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            thread_name: of the thread that watches.
            backoff_seconds: the pause after the first death, the second, and so on; the last one stays.
            clock: seconds, monotonic.
        """
        self.restarts = 0
        self._backoff_seconds = BACKOFF_SECONDS if backoff_seconds is None else backoff_seconds
        self._clock = clock
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: subprocess.Popen[bytes] | None = None
        self._asking = threading.RLock()  # a collection of garbage in the middle may ask again
        self._thread = threading.Thread(target=self._run, name=thread_name, daemon=True)

    @property
    def pid(self) -> int | None:
        """The pid of the process that runs now, if one does."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def ask_to_stop(self) -> None:
        """Tell the process to end, without waiting for it."""
        self._stopping.set()
        process = self._process
        if process is not None:
            self._ask(process)

    def stop(self) -> None:
        """End the process, and wait for the end of the thread. Idempotent.

        A process that stands still is killed after 1.5 s, one that computes after 9 s. In the thread itself, which
        may collect the last reference to its owner, nothing is waited for: the thread ends the process and then itself.
        """
        self.ask_to_stop()
        if threading.current_thread() is self._thread:
            return
        process = self._process
        if process is not None and self._thread.is_alive() and not _ends(process.pid, self._joined):
            process.kill()
        if self._thread.is_alive():
            self._thread.join()

    @abstractmethod
    def _live(self, pause: float) -> Next:
        """Start a process after *pause* seconds, stay with it until it ends or a stop is asked for; say what is next.

        It is in ``_process`` from its start on, and ended whatever happens (``_end``).
        """

    @abstractmethod
    def _tell_pause(self, pause: float) -> None:
        """Say that the next start comes in *pause* seconds."""

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, FROM_A_TERMINAL)  # what this thread starts inherits it
        self._keep()

    def _keep(self) -> None:
        failures, pause = 0, 0.0
        while not self._stopping.is_set():
            began = self._clock() + pause
            try:
                follows = self._live(pause)
            except Exception:  # noqa: BLE001 - whatever it is, the next life may be better
                # A thread that ends here would end the supervision, and nobody would be told.
                _log.exception("%s: trying again after a pause", self._thread.name)
                follows = Next.AFTER_A_PAUSE
            if self._stopping.is_set() or follows is Next.NOTHING:
                return
            if follows is Next.AT_ONCE:
                failures, pause = 0, 0.0
                continue
            failures = 1 if self._clock() - began > HEALTHY_SECONDS else failures + 1
            pause = self._backoff_seconds[min(failures, len(self._backoff_seconds)) - 1]
            self._tell_pause(pause)

    def _ask(self, process: subprocess.Popen[bytes]) -> None:
        """Send SIGTERM to *process* if it runs, but only once: a second one kills a Python that is ending."""
        with self._asking:
            if self._asked is not process and process.poll() is None:
                self._asked = process
                process.terminate()

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Stop *process* if it still runs: by SIGTERM, then by SIGKILL; wait for it and close its pipes."""
        self._ask(process)
        wait_or_kill(process)
        close_pipes(process)

    def _joined(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()


def wait_or_kill(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of *process*, which was asked to end; kill it once it makes no progress any more."""
    if _ends(process.pid, partial(_waited, process)):
        return
    process.kill()
    if not _waited(process, KILLED_SECONDS):
        _log.warning("process %d does not end: it is frozen, and will end when it is thawed", process.pid)
        threading.Thread(target=process.wait, name=f"shm-monitor-{process.pid}", daemon=True).start()


def _ends(pid: int, waited: Callable[[float], bool]) -> bool:
    """Return whether the process *pid*, which was asked to, ends while it makes progress; *waited* says if it has."""
    deadline, used_seconds = time.monotonic() + BUSY_STOP_SECONDS, _cpu_seconds(pid)
    while not waited(STOP_SECONDS):
        before_seconds, used_seconds = used_seconds, _cpu_seconds(pid)
        if used_seconds <= before_seconds or time.monotonic() >= deadline:
            return False
    return True


def _waited(process: subprocess.Popen[bytes], seconds: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.poll() is not None


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time that *pid* has used; 0 where that is unknown."""
    import psutil  # the extra of the sampler; nothing else here needs it

    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def close_pipes(process: subprocess.Popen[bytes]) -> None:
    """Close what this process holds of the pipes to *process*."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
