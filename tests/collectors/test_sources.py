"""A collector that fails, blocks or hangs costs its own readings only."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from shm_monitor.collectors.sources import HANG_SECONDS_MIN, InlineSource, ThreadedSource, source_for
from shm_monitor.schema import Unknown, unknown, why_unknown
from shm_monitor.worker.attaching import attach
from tests.support.fake_collectors import FakeCollector
from tests.support.real_sampler import RealSampler, fast
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shm_monitor.collectors.base import Array
    from shm_monitor.collectors.sources import Source


class Clock:
    """A monotonic clock that moves when told."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def __call__(self) -> int:
        return self.now_ns

    def pass_seconds(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)


class Blocker:
    """A call that blocks in C until it is let go."""

    def __init__(self) -> None:
        self._pipe = os.pipe()
        self._buffer = ctypes.create_string_buffer(1)
        self.blocks = True

    def collect(self, out: Array) -> None:
        if self.blocks:
            ctypes.CDLL(None).read(self._pipe[0], self._buffer, 1)
        out[0] = 7.0

    def let_go(self) -> None:
        self.blocks = False
        os.write(self._pipe[1], b"x")

    def close(self) -> None:
        self.let_go()
        time.sleep(0.01)
        for fd in self._pipe:
            os.close(fd)


@pytest.fixture
def blocker() -> Iterator[Blocker]:
    """Return a call that blocks in C; it is let go at the end."""
    made = Blocker()
    yield made
    made.close()


def read(source: Source) -> float:
    """Return the reading of *source*."""
    out = np.zeros(1)
    source.read(out)
    return float(out[0])


def fill(value: float) -> FakeCollector:
    """Return a collector that reads *value*."""
    return FakeCollector(lambda out: out.fill(value))


def threads_count() -> int:
    """Return how many threads collect."""
    return sum(thread.name.startswith("collector-") for thread in threading.enumerate())


def test_what_cannot_block_is_read_in_the_loop_and_the_rest_in_a_thread() -> None:
    assert isinstance(source_for(fill(1.0), 1.0), InlineSource)
    threaded = FakeCollector(lambda out: out.fill(1.0), threaded=True)
    source = source_for(threaded, 1.0)
    assert isinstance(source, ThreadedSource)
    source.close()
    assert threaded.closed


def test_a_reading_says_when_it_succeeded() -> None:
    clock = Clock()
    source = InlineSource(fill(3.0), clock)
    assert source.last_ok_mono_ns == 0
    assert read(source) == 3.0
    assert (source.last_ok_mono_ns, source.errors_count) == (clock.now_ns, 0)


def test_a_failure_is_unknown_counted_and_logged_once_until_it_works_again(caplog: pytest.LogCaptureFixture) -> None:
    broken = [True]

    def collect(out: Array) -> None:
        out[0] = 99.0
        if broken[0]:
            raise RuntimeError("no driver")

    source = InlineSource(FakeCollector(collect), Clock())
    caplog.set_level(logging.INFO)
    for _ in range(5):
        assert why_unknown(read(source)) == Unknown.ERROR
    assert (source.errors_count, source.last_ok_mono_ns) == (5, 0)
    broken[0] = False
    assert read(source) == 99.0
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["collector fake fails: RuntimeError: no driver", "collector fake works again"]


@pytest.mark.parametrize(("why", "errors"), [(Unknown.TIMEOUT, 2), (Unknown.GPU_LOST, 2), (Unknown.NOT_SUPPORTED, 0)])
def test_a_call_that_returns_without_a_reading_is_a_failure_unless_there_is_none_to_be_had(
    why: Unknown, errors: int
) -> None:
    clock = Clock()
    source = InlineSource(fill(unknown(why)), clock)
    read(source), read(source)

    assert (source.errors_count, source.last_ok_mono_ns) == (errors, 0 if errors else clock.now_ns)


def test_one_device_of_two_that_is_lost_is_a_failure() -> None:
    def collect(out: Array) -> None:
        out[:] = (unknown(Unknown.GPU_LOST), unknown(Unknown.NOT_SUPPORTED), 1.0, unknown(Unknown.ERROR))

    collector = FakeCollector(collect, threaded=True)
    collector.metrics = [collector.metrics[0]._replace(instance=instance) for instance in ("0", "0", "1", "1")]
    source = InlineSource(collector, Clock())
    source.read(np.empty(4))

    assert source.errors_count == 1


def test_a_thread_collects_at_its_own_pace() -> None:
    collector = FakeCollector(lambda out: out.fill(float(collector.calls_count)), threaded=True, interval_seconds=60.0)
    source = source_for(collector, 0.01)
    try:
        wait_until(lambda: source.last_ok_mono_ns > 0)
        assert {read(source) for _ in range(100)} == {1.0}
        assert collector.calls_count == 1
    finally:
        source.close()


def test_before_the_first_answer_a_reading_is_not_yet_sampled(blocker: Blocker) -> None:
    source = ThreadedSource(FakeCollector(blocker.collect, threaded=True), 1.0, Clock())
    try:
        assert why_unknown(read(source)) == Unknown.NOT_YET_SAMPLED
    finally:
        blocker.let_go()
        source.close()


def test_a_call_that_hangs_in_c_times_out_alone_and_comes_back(
    blocker: Blocker, caplog: pytest.LogCaptureFixture
) -> None:
    """One thread, one error and one line, however long it hangs."""
    clock = Clock()
    collector = FakeCollector(blocker.collect, threaded=True)
    source = ThreadedSource(collector, 0.01, clock)
    other = InlineSource(fill(5.0), clock)
    try:
        threads = threads_count()
        clock.pass_seconds(HANG_SECONDS_MIN)
        assert why_unknown(read(source)) == Unknown.NOT_YET_SAMPLED, "a driver may take a moment"
        for _ in range(1000):
            clock.pass_seconds(1.0)
            assert why_unknown(read(source)) == Unknown.TIMEOUT
            assert read(other) == 5.0
        assert threads_count() == threads
        assert (source.errors_count, collector.calls_count) == (1, 1)
        blocker.let_go()
        wait_until(lambda: source.last_ok_mono_ns == clock.now_ns)
        assert read(source) == 7.0
        lines = [record.getMessage() for record in caplog.records]
        assert lines == [
            "collector fake hangs: its readings are unknown until it returns",
            "collector fake returned",
        ]
    finally:
        source.close()


def test_closing_does_not_wait_for_a_call_that_hangs(blocker: Blocker) -> None:
    collector = FakeCollector(blocker.collect, threaded=True)
    source = ThreadedSource(collector, 0.01, Clock())
    wait_until(lambda: collector.calls_count == 1)
    source.close()  # else this hangs too: only the end of the test lets the call go
    assert not collector.closed, "its handles are in use"


def test_a_thread_that_fails_is_counted_each_turn() -> None:
    collector = FakeCollector(lambda out: out.fill(unknown(Unknown.ERROR) / 0), threaded=True)
    source = ThreadedSource(collector, 0.001, time.monotonic_ns)
    try:
        wait_until(lambda: source.errors_count >= 3)
        assert why_unknown(read(source)) == Unknown.ERROR
        assert source.last_ok_mono_ns == 0
    finally:
        source.close()


@pytest.mark.processes
def test_a_sampler_with_collectors_that_hang_fail_and_print_keeps_its_rate(name: str) -> None:
    """The real process: what the others read, and what its status says of each."""
    bad = tuple(f"tests.support.fake_collectors:{one}" for one in ("hangs", "raises", "prints"))
    with RealSampler(fast(name), collectors=bad) as sampler:
        assert sampler.report().error == ""
        with attach(name, on_stale="always") as reader:
            first = reader.snapshot().sequence
            wait_until(lambda: reader.snapshot().unavailable.get("fake.hangs_count") == "timeout")
            snapshot = reader.snapshot()
            assert snapshot.sequence > first + 3, "the loop turns while one of its collectors hangs"
            assert reader.should_prune() is False
            assert snapshot.unavailable["fake.raises_count"] == "error"
            assert snapshot.other["fake.prints_count"] == 1.0
            assert snapshot.cpu.count is not None
            collectors = reader.status().collectors
            assert collectors["hangs"] == (None, 1)
            assert collectors["raises"].last_ok_age_seconds is None
            assert collectors["raises"].errors_count > 10
            assert collectors["prints"].errors_count == 0
            threads = len(os.listdir(f"/proc/{sampler.process.pid}/task"))
            time.sleep(0.5)
            assert len(os.listdir(f"/proc/{sampler.process.pid}/task")) == threads
        sampler.process.terminate()
        status, _ = sampler.end()
        assert status == 0, "a hanging thread does not keep it from ending"
