"""Twenty minutes of kills, hangs, restarts and readers: memory and descriptors stay flat. ``make soak``."""

from __future__ import annotations

import gc
import os
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from shm_monitor.segment import names
from shm_monitor.supervision.handshake import Order
from shm_monitor.supervision.supervisor import Supervisor
from shm_monitor.worker.attaching import attach
from tests.support.reader_process import ReaderProcess
from tests.support.real_sampler import fast
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from shm_monitor.worker.reader import Reader

SOAK_SECONDS = float(os.environ.get("TEST_SOAK_SECONDS", "1200"))
LIFE_SECONDS = (3.0, 15.0)  # of a sampler, before something happens to it
LONG_LIFE_SECONDS = 60.0  # of every eighth
YOUTH_SECONDS = 8.0  # after which a sampler should have all that it needs: its kernels, a ring that is full
GROWTH_BYTES = 4 << 20  # what an allocator may keep; a leak of 100 bytes per sample would be 10 MB here
WARM_LIVES = 3
LOOKS = 10


class Usage(NamedTuple):
    """What a process holds."""

    rss_bytes: int
    descriptors_count: int
    threads_count: int
    mappings_count: int


def usage_of(pid: int) -> Usage:
    """Return what *pid* holds: the least of some looks, for a collector has files of /proc open meanwhile."""
    looks = []
    for _ in range(LOOKS):
        status = Path(f"/proc/{pid}/status").read_text()
        looks.append(
            Usage(
                rss_bytes=int(status.partition("RssAnon:")[2].split()[0]) * 1024,  # without files and the segment
                descriptors_count=len(os.listdir(f"/proc/{pid}/fd")),
                threads_count=len(os.listdir(f"/proc/{pid}/task")),
                mappings_count=Path(f"/proc/{pid}/maps").read_text().count(names.PREFIX),
            )
        )
        time.sleep(0.02)
    return Usage(*map(min, zip(*looks, strict=True)))


def grown(before: Usage, after: Usage) -> list[str]:
    """Return what *after* has more of than *before*."""
    found = []
    if after.rss_bytes > before.rss_bytes + GROWTH_BYTES:
        found.append(f"{(after.rss_bytes - before.rss_bytes) / 2**20:.1f} MiB")
    for field, had, has in zip(Usage._fields[1:], before[1:], after[1:], strict=True):
        if has > had:
            found.append(f"{has - had} {field}")
    return found


@pytest.mark.soak
@pytest.mark.timeout(SOAK_SECONDS + 600)
def test_restarts_and_kills_all_along_leave_everything_flat(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One supervisor and a reader here, two readers elsewhere."""
    monkeypatch.setattr("shm_monitor.supervision.keeper.BACKOFF_SECONDS", (0.2,))
    moments = random.Random(1)
    deadline = time.monotonic() + SOAK_SECONDS
    config = fast(name, check_interval=0.02, history_seconds=2.0, stale_after=1.0)
    supervisor = Supervisor(Order(config=config, owner_pid=os.getpid()))
    supervisor.start()
    others = [ReaderProcess("watch", name) for _ in range(2)]
    reader = attach(name, on_stale="always")
    baseline: list[Usage] = []
    lives_count = 0
    try:
        while time.monotonic() < deadline:
            pid = supervisor.pid or reader.status().pid or 0
            ask_for(YOUTH_SECONDS, reader)
            young = usage_of(pid)
            lives_count += 1
            ask_for(moments.uniform(*LIFE_SECONDS) if lives_count % 8 else LONG_LIFE_SECONDS, reader)
            assert grown(young, usage_of(pid)) == []
            if lives_count == WARM_LIVES:
                baseline = usages(others)
            os.kill(pid, moments.choice([signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGSEGV]))
            wait_until(reader.should_prune)
            wait_until(lambda: reader.status().state == "live")
        gc.collect()
        assert [grown(before, after) for before, after in zip(baseline, usages(others), strict=True)] == [[], [], []]
        for other in others:
            counts = other.finish()
            assert counts["errors"] == 0
            assert counts["deaths"] >= lives_count
        print(f"\n{lives_count} deaths in {SOAK_SECONDS:.0f} s")
    finally:
        for other in others:
            other.close()
        reader.close()
        supervisor.stop()


def usages(others: list[ReaderProcess]) -> list[Usage]:
    """Return what this process and the readers hold."""
    return [usage_of(os.getpid()), *(usage_of(other.pid) for other in others)]


def ask_for(seconds: float, reader: Reader) -> None:
    """Do what a worker does, for *seconds*."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for _ in range(1000):
            reader.should_prune()
        reader.snapshot()
        reader.history(seconds=1.0)
        reader.status()
        time.sleep(0.01)
