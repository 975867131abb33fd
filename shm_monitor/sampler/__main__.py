"""The sampler process: from its order to its clean stop.

Started by name (``python -m shm_monitor.sampler``), never by multiprocessing: a spawned child would import the user's
main module again. Its order comes in over standard input, whose end means that the owner is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import logging
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING

from shm_monitor.errors import FencedError, MonitorError
from shm_monitor.sampler.kernel_support import NO_SUPPORT, KernelSupport, tried_support
from shm_monitor.sampler.promptness import wake_promptly
from shm_monitor.sampler.schedule import Schedule
from shm_monitor.segment.death import last_was_short_of_memory
from shm_monitor.segment.lock import Lock
from shm_monitor.supervision.handshake import Order, Report, encode_report, receive_order, report_of
from shm_monitor.supervision.log_lines import log_to_stderr
from shm_monitor.supervision.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from shm_monitor.sampler.loop import Sampler

_log = logging.getLogger("shm_monitor.sampler")

SIGTERM = "SIGTERM"  # the reason of a clean exit, of which no program has to tell
WAKE_SECONDS = 1.0  # at least this often the sampler looks whether its owner lives


class Stop:
    """Why and when to stop: SIGTERM, the end of standard input, or the end of the owner."""

    def __init__(self, stdin_fd: int, owner_pid: int) -> None:
        """Watch *stdin_fd* and the process *owner_pid*, and take SIGTERM."""
        self.reason = ""
        self._owner_pid = owner_pid
        self._stdin_fd = stdin_fd
        self._wake, signal_side = os.pipe()  # open until the process ends, for a signal may come until then
        os.set_blocking(signal_side, False)
        signal.set_wakeup_fd(signal_side, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_term)
        self._pidfd = _pidfd(owner_pid)
        self._watched = [fd for fd in (stdin_fd, self._wake, self._pidfd) if fd >= 0]

    def wait(self, seconds: float) -> bool:
        """Sleep for *seconds*, or until there is a reason to stop; return whether there is one."""
        deadline = time.monotonic() + seconds
        while not self.reason:
            left = max(deadline - time.monotonic(), 0.0)
            self._look(select.select(self._watched, [], [], min(left, WAKE_SECONDS))[0])
            if time.monotonic() >= deadline:
                break
        return bool(self.reason)

    def _on_term(self, number: int, frame: object) -> None:  # noqa: ARG002
        self.reason = SIGTERM

    def _look(self, ready: list[int]) -> None:
        if self._pidfd in ready or os.getppid() != self._owner_pid:
            self.reason = f"its owner {self._owner_pid} ended"
        elif self._stdin_fd in ready and not os.read(self._stdin_fd, 1):
            self.reason = "its owner closed the order pipe"
        elif self._wake in ready:
            os.read(self._wake, 64)


def run(sampler: Sampler, stop: Stop, interval_ns: int, *, on_first: Callable[[], None], adaptive: bool = True) -> None:
    """Take samples on schedule until *stop*; call *on_first* once the first one is readable.

    While memory rises towards its end, an *adaptive* loop looks at it between two turns, too.

    Raises:
        FencedError: another sampler took the segment.
    """
    sampler.sample()
    on_first()
    schedule = Schedule(time.monotonic_ns(), interval_ns)
    schedule.take_turn(time.monotonic_ns())
    while True:
        began_ns = time.monotonic_ns()
        between_ns = schedule.between_ns(began_ns, sampler.wait_seconds) if adaptive else 0
        if stop.wait(((between_ns or schedule.due_ns) - began_ns) / 1e9):
            return
        if between_ns and time.monotonic_ns() < schedule.due_ns:
            sampler.sample_between()
            continue
        schedule.take_turn(time.monotonic_ns())
        sampler.missed_turns_count = schedule.missed_turns_count
        sampler.sample()


def main() -> int:
    """Run the sampler that the order on standard input asks for; return the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's to handle
    reports_fd = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3)
    with contextlib.suppress(OSError):  # a daemon may have no standard error
        os.dup2(2, 1)  # what a collector prints would fill the pipe, which nobody reads
    log_to_stderr(logging.INFO, "shm-monitor sampler[%(process)d]: %(message)s")
    try:
        support = tried_support()  # forks, so before anything has a thread
        order = awaited_order()
        stop = Stop(sys.stdin.fileno(), order.owner_pid)
        return _run_locked(order, stop, reports_fd, NO_SUPPORT if order.force_clock else support)
    except EOFError:
        return 2
    except MonitorError as error:
        _report(reports_fd, report_of(error, os.getpid()))
    except Exception as error:
        refused = refusal(error, "the sampler cannot go on")
        if refused is None:
            raise
        _report(reports_fd, report_of(refused, os.getpid()))
    return 1


def awaited_order() -> Order:
    """Return the order on standard input. While it does not come, as after a death, load what takes a second to load.

    Raises:
        EOFError: the owner ended before it had written all of it.
    """
    owner_pid = os.getppid()
    if not select.select([sys.stdin], [], [], 0.0)[0]:
        importlib.import_module("shm_monitor.sampler.loop")
    while not select.select([sys.stdin], [], [], WAKE_SECONDS)[0]:
        if os.getppid() != owner_pid:  # a forked worker of the owner may keep the pipe open
            raise EOFError
    return receive_order(sys.stdin.buffer)


def _run_locked(order: Order, stop: Stop, reports_fd: int, support: KernelSupport) -> int:
    lock = Lock(order.config.name)
    from shm_monitor.sampler import compilation  # all of it a second, which who finds the lock taken need not wait
    from shm_monitor.sampler.loop import Sampler, sources_for

    try:
        if stop.wait(0.0):
            return 0
        killed_before = last_was_short_of_memory(order.config.name)  # before the first sample overwrites what it left
        wake_promptly()
        sampler = Sampler(order, sources_for(order), support=support)
        report = Report(
            pid=os.getpid(),
            taken_over=sampler.taken_over,
            kernel_marks_death=support.marks_death,
            kernel_ends_hang=support.ends_hang,
        )

        def on_first() -> None:
            _report(reports_fd, report)
            compilation.begin(
                order.config.compile,
                rate_hz=1.0 / order.config.check_interval,
                limits_count=sampler.limits_count,
                killed_before=killed_before,
            )

        try:
            run(
                sampler, stop, int(order.config.check_interval * 1e9), on_first=on_first, adaptive=order.config.adaptive
            )
            _log.log(logging.DEBUG if stop.reason == SIGTERM else logging.INFO, "stopped: %s", stop.reason)
        except FencedError as error:
            _log.error("stopped: %s", error)
        finally:
            sampler.close()
    finally:
        lock.release()
    return 0


def _report(fd: int, report: Report) -> None:
    """Tell the owner, unless it is gone already."""
    with contextlib.suppress(BrokenPipeError):
        os.write(fd, encode_report(report))


def _pidfd(pid: int) -> int:
    """Return a descriptor that becomes readable when *pid* ends; -1 where the system has none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1


if __name__ == "__main__":
    sys.exit(main())
