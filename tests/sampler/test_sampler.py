"""The sampler process: how it starts, keeps its schedule, and when it ends."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from shm_monitor.errors import AlreadyRunningError, SamplerError
from shm_monitor.segment import layout
from shm_monitor.segment.names import LOCK_SUFFIX, side_path
from shm_monitor.segment.view import View
from shm_monitor.supervision.handshake import decode_report, error_of
from shm_monitor.worker.attaching import attach
from tests.support.children import PYTHON
from tests.support.light_sampler import end
from tests.support.real_sampler import RealSampler, fast
from tests.support.surroundings import child_environment, files_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shm_monitor.config.resource import ResourceConfig

pytestmark = pytest.mark.processes


@pytest.fixture
def start() -> Iterator[Callable[..., RealSampler]]:
    """Start real samplers; whatever happens they end."""
    made: list[RealSampler] = []

    def one(config: ResourceConfig, **options: object) -> RealSampler:
        made.append(RealSampler(config, **options))  # type: ignore[arg-type]
        return made[-1]

    yield one
    for sampler in made:
        sampler.close()


def test_one_life_from_the_order_to_the_clean_stop(start: Callable[..., RealSampler], name: str) -> None:
    sampler = start(fast(name))
    report = sampler.report()
    assert (report.error, report.pid, report.taken_over) == ("", sampler.process.pid, False)
    with attach(name, timeout=0.0, on_stale="always") as reader:
        assert reader.status().state == "live"
        assert reader.should_prune() is False
        assert reader.snapshot().memory.usage_bytes
        capabilities = reader.view().header.capabilities
        assert bool(capabilities & layout.KERNEL_MARKS_DEATH) is report.kernel_marks_death
        assert bool(capabilities & layout.KERNEL_ENDS_HANG) is report.kernel_ends_hang
        sampler.process.send_signal(signal.SIGINT)  # Ctrl-C goes to the whole group: the owner decides
        sequence = reader.snapshot().sequence
        wait_until(lambda: reader.snapshot().sequence > sequence + 3)
        sampler.process.terminate()
        status, said = sampler.end()
        assert (status, said) == (0, "")
        assert reader.status().state == "stopped"
        assert reader.should_prune() is True
    assert files_of(name) == []


def test_a_killed_sampler_is_taken_over_by_the_next_and_its_means_go_on(
    start: Callable[..., RealSampler], name: str
) -> None:
    first = start(fast(name, observation_period=5.0))
    first.report()
    with attach(name, on_stale="always") as reader:
        wait_until(lambda: reader.snapshot().sequence >= 20)
        at_ns = end(first.process.pid)
        assert reader.should_prune() is True
        before = reader.snapshot()
        second = start(fast(name, observation_period=5.0))
        report = second.report()
        assert report.taken_over
        assert reader.should_prune() is False
        print(f"\ntakeover of a real sampler: {(time.monotonic_ns() - at_ns) / 1e6:.0f} ms from kill to sample")
        view = reader.view()
        first_new = next(one for one in view.samples() if one.epoch == reader.status().epoch)
        assert first_new.number == before.sequence + 1
        after = reader.snapshot()
        assert after.rolled.keys() == before.rolled.keys()
        assert after.memory.capacity_bytes == before.memory.capacity_bytes


@pytest.mark.slow
def test_rolling_statistics_include_the_samples_before_the_takeover(
    start: Callable[..., RealSampler], name: str
) -> None:
    start(fast(name, observation_period=60.0, history_seconds=120.0)).report()
    with attach(name) as reader:
        wait_until(lambda: reader.snapshot().sequence >= 30)
        end(reader.status().pid or 0)
        start(fast(name, observation_period=60.0, history_seconds=120.0)).report()
        metric = "memory.usage_bytes"
        snapshot = reader.snapshot()
        history = reader.history([metric])
        used = [
            value
            for number, value in zip(history.sequences, history.columns[metric], strict=True)
            if number <= snapshot.sequence and value is not None
        ]
        assert len(used) == snapshot.sequence >= 31
        mean = snapshot.rolled[metric].mean
        assert mean == pytest.approx(sum(used) / len(used), rel=1e-9)


def test_the_second_of_two_says_who_is_running_before_it_has_loaded_anything(
    start: Callable[..., RealSampler], name: str
) -> None:
    first = start(fast(name))
    first.report()
    second = start(fast(name))
    report = second.report()
    error = error_of(report)
    assert isinstance(error, AlreadyRunningError)
    assert error.holder_pid == first.process.pid
    assert second.end()[0] == 1
    assert View(name).sample().number > 0


@pytest.mark.parametrize("turn", [0, *(pytest.param(turn, marks=pytest.mark.slow) for turn in range(1, 10))])
def test_of_two_real_samplers_started_at_once_exactly_one_wins(
    start: Callable[..., RealSampler], name: str, turn: int
) -> None:
    both = [start(fast(name)), start(fast(name))]
    reports = [one.report() for one in both]
    assert sorted(bool(report.error) for report in reports) == [False, True]
    winner = next(report for report in reports if not report.error)
    loser = next(report for report in reports if report.error)
    assert (loser.error, loser.attributes["holder_pid"]) == ("AlreadyRunningError", winner.pid)


def test_the_end_of_its_standard_input_ends_it(start: Callable[..., RealSampler], name: str) -> None:
    sampler = start(fast(name))
    sampler.report()
    assert sampler.process.stdin is not None
    sampler.process.stdin.close()
    status, said = sampler.end()
    assert status == 0
    assert "closed the order pipe" in said
    assert files_of(name) == []


def test_without_an_order_it_ends_at_once() -> None:
    done = subprocess.run(
        [*PYTHON, "-m", "shm_monitor.sampler"],
        env=child_environment(),
        input=b"\x10\0\0\0half",
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")


@pytest.mark.parametrize(
    "by_kernel", [pytest.param(True, id="kernel", marks=pytest.mark.slow), pytest.param(False, id="clock")]
)
def test_the_fallback_to_the_clock_is_the_whole_thing(
    start: Callable[..., RealSampler], name: str, by_kernel: bool
) -> None:
    sampler = start(fast(name, stale_after=1.0), force_clock=not by_kernel)
    report = sampler.report()
    if by_kernel and not report.kernel_ends_hang:
        pytest.skip("this kernel does not do both")
    assert (report.kernel_marks_death, report.kernel_ends_hang) == (by_kernel, by_kernel)
    with attach(name, on_stale="always") as reader:
        assert reader.should_prune() is False
        end(sampler.process.pid)
        wait_until(reader.should_prune)
        assert reader.status().state == "stale"
        assert start(fast(name, stale_after=1.0), force_clock=not by_kernel).report().taken_over
        assert reader.should_prune() is False


@pytest.mark.alone
@pytest.mark.slow
def test_turns_that_take_too_long_are_missed_counted_and_never_caught_up(
    start: Callable[..., RealSampler], name: str
) -> None:
    start(fast(name), collectors=("tests.support.fake_collectors:slow",)).report()
    with attach(name) as reader:
        wait_until(lambda: (reader.snapshot().sampler.missed_turns_count or 0) >= 6)
        times = [sample.mono_ns for sample in reader.view().samples()]
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert min(gaps) >= 0.05e9 / 2


def test_a_collector_that_cannot_be_made_is_a_failed_start_whose_log_says_why(
    start: Callable[..., RealSampler], name: str
) -> None:
    sampler = start(fast(name), collectors=("tests.support.fake_collectors:missing",))
    assert sampler.process.stdout is not None
    with pytest.raises(SamplerError, match="log"):
        decode_report(sampler.process.stdout.readline())
    status, said = sampler.end()
    assert status == 1
    assert "no such device" in said
    assert files_of(name) == []


@pytest.mark.slow
def test_a_collector_that_does_not_close_keeps_nobody_from_hearing_of_the_stop(
    start: Callable[..., RealSampler], name: str
) -> None:
    sampler = start(fast(name), collectors=("tests.support.fake_collectors:does_not_close",))
    sampler.report()
    with attach(name) as reader:
        sampler.process.terminate()
        status, said = sampler.end()
        assert status == 0
        assert "stubborn does not close" in said
        assert reader.status().state == "stopped"


@pytest.mark.slow
def test_a_sampler_without_a_writable_cache_still_samples(name: str, tmp_path: object) -> None:
    """The numba cache is cold: samples go on interpreted while the kernels compile."""
    os.environ["NUMBA_CACHE_DIR"] = str(tmp_path)
    try:
        with RealSampler(fast(name)) as sampler:
            began = time.monotonic()
            assert sampler.report().error == ""
            print(f"\nfirst sample on a cold numba cache: {time.monotonic() - began:.2f} s")
            with attach(name) as reader:
                wait_until(lambda: reader.snapshot().sequence > 3)
    finally:
        del os.environ["NUMBA_CACHE_DIR"]


@pytest.mark.slow
def test_real_samplers_killed_at_random_moments_leave_a_readable_segment(
    start: Callable[..., RealSampler], name: str
) -> None:
    """Ten of them, the next one each time while the reader goes on asking; some are killed while they start."""
    with attach(name, timeout=0.0, required=False, on_stale="always") as reader:
        gaps = []
        for turn in range(10):
            sampler = start(fast(name))
            if turn % 3 == 2:
                time.sleep(0.2 * turn % 0.9)
            else:
                sampler.report()
                assert reader.status().state in {"live", "absent"}
                wait_until(lambda: not reader.should_prune())
            at_ns = end(sampler.process.pid)
            assert reader.should_prune() is True
            gaps.append((time.monotonic_ns() - at_ns) / 1e6)
            assert reader.snapshot().sequence > 0
        print(f"\nfrom kill to answer of a real sampler: {sorted(gaps)[5]:.2f} ms")
    assert os.path.exists(side_path(name, LOCK_SUFFIX))
