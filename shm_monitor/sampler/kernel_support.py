"""What this kernel does for readers: tried once, at the start of a sampler, by a child that hangs and is ended."""

from __future__ import annotations

import mmap
import os
import platform
import signal
import threading
import time
from typing import NamedTuple

from shm_monitor.sampler.deadman import DeadManSwitch
from shm_monitor.sampler.robust import RobustList
from shm_monitor.segment.address import address_of
from shm_monitor.segment.flags import DIED, PRESSED

HANG_SECONDS = 0.002
PATIENCE_SECONDS = 2.0  # a thousand times what it takes, for a machine that is busy
_LOOK_SECONDS = 0.0005


class KernelSupport(NamedTuple):
    """What the kernel does; where it does not do both, readers ask the clock.

    Args:
        marks_death: it marks the flags of a thread that ended (``shm_monitor.sampler.robust``).
        ends_hang: it ends a process that hangs (``shm_monitor.sampler.deadman``).
    """

    marks_death: bool
    ends_hang: bool


NO_SUPPORT = KernelSupport(marks_death=False, ends_hang=False)


def tried_support() -> KernelSupport:
    """Try it: a forked child bears one flag, sets its switch to 2 ms, and stops. 5 ms; before there are threads."""
    if platform.system() != "Linux" or threading.active_count() > 1:
        return NO_SUPPORT
    with mmap.mmap(-1, mmap.PAGESIZE) as shared:
        try:
            child = os.fork()
        except OSError:  # no process left
            return NO_SUPPORT
        if child == 0:
            _hang(shared)
        was_ended = _is_ended(child)
        marks_death = int.from_bytes(shared[:4], "little") == DIED | PRESSED
    return KernelSupport(marks_death, marks_death and was_ended)


def _hang(shared: mmap.mmap) -> None:
    """Bear the flag and stop, to be killed; never return, not even by an exception."""
    try:
        RobustList(address_of(shared), 1, owner=shared)
        shared[:4] = (threading.get_native_id() | PRESSED).to_bytes(4, "little")
        DeadManSwitch().push_back(time.monotonic_ns() + int(HANG_SECONDS * 1e9))
        os.kill(os.getpid(), signal.SIGSTOP)
    finally:
        os._exit(1)


def _is_ended(child: int) -> bool:
    """Wait for the end of *child* and say whether the kernel killed it; if it hangs on, kill it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        time.sleep(_LOOK_SECONDS)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False
