"""Forks beside threads that use one public object all the time; run in a process of its own."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import shm_monitor as sm

if TYPE_CHECKING:
    from collections.abc import Callable

HANG_SECONDS = 20  # after which a child is killed
THREADS = 3


def governor(reader: sm.Reader) -> Callable[[], object]:
    """Return a step that takes the lock each time."""
    one = sm.Governor(64, reader=reader)

    def use() -> None:
        one.step()
        one.observe(1, 1000.0)

    return use


def executor(reader: sm.Reader) -> Callable[[], object]:
    """Return a look at what runs; a child has a pool of its own."""
    one = sm.BoundedExecutor(ThreadPoolExecutor(2), limit=4, reader=reader)
    pid = os.getpid()

    def use() -> None:
        if os.getpid() == pid:
            one.submit(int).result()
        else:
            assert one.running == 0

    return use


def listeners(reader: sm.Reader) -> Callable[[], object]:
    """Return one that listens and stops listening."""

    def use() -> None:
        end = reader.on_change(print)
        end()

    return use


def presence(reader: sm.Reader) -> Callable[[], object]:
    """Return one that attaches anew, is present and goes."""

    def use() -> None:
        with sm.attach(reader.name, present=True) as one:
            one.request()

    return use


def answers(reader: sm.Reader) -> Callable[[], object]:
    """Return every question of a reader; the first of each loads what it needs."""

    def use() -> None:
        reader.should_prune(), reader.level(), reader.reasons(), reader.episode(), reader.status()
        reader.snapshot(), reader.explain(), reader.headroom(), reader.outlook(), reader.history()
        reader.wait(0)

    return use


def fork_beside(use: Callable[[], object]) -> bool:
    """Return whether a child that is forked now could use it to its end."""
    pid = os.fork()
    if not pid:
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        status = 1
        try:
            use()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def main(name: str, which: str, count: int) -> None:
    """Fork *count* times beside hot threads; print how many children did not hang."""
    warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12: what this tries is what it warns of
    sys.setswitchinterval(1e-4)
    use = globals()[which](sm.attach(name))
    stop = threading.Event()

    def run() -> None:
        with contextlib.suppress(RuntimeError):  # of an executor that is shut down
            while not stop.is_set():
                use()

    threads = [threading.Thread(target=run, daemon=True) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    print(sum(fork_beside(use) for _ in range(count)))
    stop.set()
    for thread in threads:
        thread.join()
