"""Wait beside a sampler that another process owns, and own the next one when that process is gone.

While owner and sampler live, nothing here wakes up: the thread sleeps on their pidfds. When the owner ends, all who
wait wake at once; a lock says which one of them starts a sampler, for thirty interpreters at once would take seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import select
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from shm_monitor.errors import AlreadyRunningError, MonitorError
from shm_monitor.segment import layout, names, side_files
from shm_monitor.segment.lock import holder_of
from shm_monitor.segment.status import LIVE, STALE, state_of
from shm_monitor.segment.view import view_of
from shm_monitor.supervision.keeper import BACKOFF_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("shm_monitor.supervisor")

LOOK_SECONDS = 0.05  # between two looks while there is no live sampler
BLIND_SECONDS = 1.0  # the same where no pidfd can tell of an end: another pid namespace, another system
CLOSED_SECONDS = (
    1.0  # an owner that closed its sampler and lives on may start another; programs that end together do end
)
PATIENCE_SECONDS = 40.0  # an owner that lives restarts what died, after 30 s at most; one that is stopped never does
CLAIM_SECONDS = 15.0  # a claim that is held for longer is held by nobody: a forked child has inherited it


class Claim:
    """The right to start a sampler, from asking for it to its first sample; the kernel ends it with this process.

    A ``flock`` on the file of the sampler's own lock, which is of another kind (fcntl) and not in its way: that one
    decides who samples, this one only who may try.
    """

    def __init__(self, name: str) -> None:
        """Prepare to claim *name*."""
        self._name = name
        self._path = names.side_path(name, names.LOCK_SUFFIX)
        self._fd = -1

    def take(self) -> bool:
        """Take it if nobody has it. Where it cannot be taken at all everybody may try."""
        try:
            fd = side_files.open_file(self._name, names.LOCK_SUFFIX, os.O_RDWR | os.O_CREAT)
        except (MonitorError, OSError):
            return True  # the sampler says what is wrong with it
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def release(self) -> None:
        """Give it back, and remove the file where no sampler has locked it. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        if holder_of(self._name) is None:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(fd), os.stat(self._path, follow_symlinks=False)):
                    os.unlink(self._path)
        fcntl.flock(fd, fcntl.LOCK_UN)  # a forked child may have the descriptor, too
        os.close(fd)

    def forget(self) -> None:
        """Close this forked child's copy; the claim stays its parent's."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Sampler(NamedTuple):
    """A sampler that was seen live: its pid, and its start in clock ticks, which no other process of that pid has."""

    pid: int
    start_ticks: int


class Heir:
    """A daemon thread that calls *take_over* when the sampler of a name needs a new owner, until that returns True."""

    def __init__(self, name: str, take_over: Callable[[], bool]) -> None:
        """Prepare; ``start`` begins.

        Args:
            name: of the sampler.
            take_over: starts a sampler; False where somebody else has one. May raise ``MonitorError``.
        """
        self._name = name
        self._take_over = take_over
        self._claim = Claim(name)
        self._closed = self._closed_here = False
        self._last: Sampler | None = None
        self._gone_since = self._refused_since = math.inf
        self._failures = 0
        self._wake, self._waker = os.pipe()
        self._pidfds: dict[str, int] = {}  # "owner", "sampler"
        self._thread = threading.Thread(target=self._run, name="shm-monitor-heir", daemon=True)

    def start(self) -> None:
        """Begin to wait."""
        self._thread.start()

    def stop(self) -> None:
        """Give up, and wait for the end of the thread; a *take_over* under way is for the caller to end. Idempotent."""
        self._closed = True
        if self._waker >= 0:
            os.write(self._waker, b"x")
        if threading.current_thread() is self._thread:
            self._closed_here = True
            return  # it collected the last reference to its owner; it closes the pipe when it ends
        if self._thread.is_alive():
            self._thread.join()
        self._close_pipe()

    def forget(self) -> None:
        """Close this forked child's copies of what the thread, which is not here, waits on. Takes no lock."""
        self._closed = True
        self._claim.forget()
        self._close_pidfds()
        self._close_pipe()

    def _run(self) -> None:
        try:
            while not self._closed:
                sampler = _live_sampler(self._name)
                if sampler is not None:
                    self._stay_beside(sampler)
                elif self._inherit():
                    return
        finally:
            self._close_pidfds()
            if self._closed_here:
                self._close_pipe()

    def _stay_beside(self, sampler: Sampler) -> None:
        """Sleep until *sampler* or its owner ends; where nothing tells of that, or one has ended, for a moment."""
        self._gone_since, self._failures = math.inf, 0
        if sampler != self._last:
            self._watch(sampler)
            self._last = sampler
        if any(map(self._has_ended, self._pidfds)):
            self._sleep(LOOK_SECONDS)  # it reads as live for an instant longer
        else:
            self._sleep(None if len(self._pidfds) == 2 else BLIND_SECONDS, *self._pidfds.values())

    def _inherit(self) -> bool:
        """Take over if it is time and nobody else is about to; else sleep a little. Return whether it succeeded."""
        now = time.monotonic()
        self._gone_since = min(self._gone_since, now)
        if now - self._gone_since < self._patience_seconds():
            self._sleep(LOOK_SECONDS)
            return False
        if not self._claim.take():
            self._refused_since = min(self._refused_since, now)
            if now - self._refused_since < CLAIM_SECONDS:
                self._sleep(LOOK_SECONDS)
                return False
        self._refused_since = math.inf
        if self._try():
            return True
        self._sleep(BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS)) - 1] if self._failures else LOOK_SECONDS)
        return False

    def _try(self) -> bool:
        """Call *take_over* with the claim taken; return whether this process has the sampler now."""
        try:
            return _live_sampler(self._name) is None and not self._closed and self._take_over()
        except AlreadyRunningError:
            return False
        except MonitorError as error:
            self._failures += 1
            if not self._closed:
                _log.warning("%s: this process does not get a sampler going either: %s", self._name, error)
            return False
        finally:
            self._claim.release()

    def _patience_seconds(self) -> float:
        """Return how long to leave a sampler that is gone to its owner."""
        if self._has_ended("owner"):
            return 0.0
        return PATIENCE_SECONDS if _died(self._name) else CLOSED_SECONDS

    def _watch(self, sampler: Sampler) -> None:
        """Open the pidfds of *sampler* and of its owner, which is its parent."""
        self._close_pidfds()
        parent = _parent_of(sampler)
        if parent is None:
            return  # of another pid namespace, or it ended just now
        for role, pid in (("sampler", sampler.pid), ("owner", parent)):
            with contextlib.suppress(OSError, AttributeError):  # gone, or a system without pidfds
                self._pidfds[role] = os.pidfd_open(pid)
        if _parent_of(sampler) != parent:
            self._close_pidfds()  # the owner ended meanwhile: what was opened may be whoever got its pid

    def _has_ended(self, role: str) -> bool:
        fd = self._pidfds.get(role)
        if fd is None:
            return False
        poll = select.poll()  # unlike select(), it takes a descriptor of any number
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))

    def _sleep(self, seconds: float | None, *fds: int) -> None:
        poll = select.poll()
        for fd in (self._wake, *fds):
            poll.register(fd, select.POLLIN)
        poll.poll(None if seconds is None else seconds * 1000)

    def _close_pidfds(self) -> None:
        """Close them; each is forgotten before it is closed, so that a child forked in between closes nothing else."""
        while self._pidfds:
            os.close(self._pidfds.popitem()[1])

    def _close_pipe(self) -> None:
        fds, self._wake, self._waker = (self._wake, self._waker), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)


def _live_sampler(name: str) -> Sampler | None:
    view = view_of(name)
    if view is None or state_of(view) != LIVE:
        return None
    return Sampler(view.word(layout.PID_OFFSET), view.word(layout.START_TICKS_OFFSET))


def _died(name: str) -> bool:
    """Say whether the sampler of *name* ended without stopping cleanly: its segment stays and says so."""
    view = view_of(name)
    return view is not None and state_of(view) == STALE


def _parent_of(sampler: Sampler) -> int | None:
    """Return the pid of the parent of *sampler*; None where that pid is not this sampler.

    Source: proc_pid_stat(5), fields 4 and 22.
    """
    try:
        with open(f"/proc/{sampler.pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        parent, ticks = int(fields[1]), int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
    return parent if ticks == sampler.start_ticks else None
