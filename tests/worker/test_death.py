"""A sampler may die at any moment, and every worker knows at once."""

from __future__ import annotations

import os
import random
import select
import signal
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from shm_monitor.segment import layout
from shm_monitor.segment.status import LIVE, STALE, STOPPED
from shm_monitor.worker.attaching import attach
from tests.support.cgroups import new_group
from tests.support.host_trees import is_root
from tests.support.light_sampler import LightSamplers, Started, end
from tests.support.reader_process import Answer, ReaderProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.processes

READERS_COUNT = 4


class Life(NamedTuple):
    """One incarnation: its start as it reported it, and when it was killed."""

    started: Started
    killed_ns: int


@pytest.fixture
def readers(name: str) -> Iterator[Callable[..., list[ReaderProcess]]]:
    """Start readers of this test's sampler; whatever happens they end."""
    made: list[ReaderProcess] = []

    def make(mode: str, seconds: float = 0.0, count: int = READERS_COUNT) -> list[ReaderProcess]:
        made.extend(ReaderProcess(mode, name, seconds) for _ in range(count))
        return made

    yield make
    for one in made:
        one.close()


def kill_again_and_again(light: LightSamplers, name: str, readers: list[ReaderProcess], kills_count: int) -> list[Life]:
    """Kill the sampler *kills_count* times at random moments; each time every reader must see it, and then the next."""
    moments = random.Random(20)
    started = light.one(name)
    lives = []
    for done in range(kills_count):
        for reader in readers:
            reader.wait_for(2 + 4 * done)
        time.sleep(moments.uniform(0, 0.01))
        lives.append(Life(started, end(started.pid)))
        for reader in readers:
            reader.wait_for(4 + 4 * done)
        started = light.one(name)
    for reader in readers:
        reader.wait_for(2 + 4 * kills_count)
    lives.append(Life(started, end(started.pid)))
    return lives


def wrong_answers(answers: list[Answer], lives: list[Life], *, when_alive: bool) -> list[str]:
    """Return what is wrong with *answers*: each alternates, none before its cause, none after its cause has gone."""
    wrong = []
    for index, answer in enumerate(answers):
        life, is_alive = lives[index // 2], index % 2 == 0
        if is_alive:
            good = answer.answer is when_alive and life.started.began_ns <= answer.after_ns
            good = good and answer.before_ns <= life.killed_ns
        else:
            following = lives[index // 2 + 1].started if index // 2 + 1 < len(lives) else None
            good = answer.answer is not when_alive and life.killed_ns <= answer.after_ns
            good = good and (following is None or answer.before_ns <= following.live_ns)
        if not good:
            wrong.append(f"{index}: {answer} in {life}")
    return wrong


def every_death_is_seen(light: LightSamplers, name: str, readers: list[ReaderProcess], kills_count: int) -> list[float]:
    """Kill and check everything; return the milliseconds from each kill to each reader's answer."""
    lives = kill_again_and_again(light, name, readers, kills_count)
    delays = []
    for reader in readers:
        reader.wait_for(4 * len(lives))
        counts = reader.finish()
        assert (counts["torn"], counts["degraded"], counts["went_back"]) == (0, 0, 0)
        assert counts["warnings"] == 2 * len(lives), "once per death and reader"
        for question, when_alive in (("always", False), ("never", True)):
            answers = [answer for answer in reader.answers if answer.question == question]
            assert len(answers) == 2 * len(lives)
            assert wrong_answers(answers, lives, when_alive=when_alive) == []
            deaths = zip(answers[1::2], lives, strict=True)
            delays += [(answer.after_ns - life.killed_ns) / 1e6 for answer, life in deaths]
    return delays


@pytest.mark.parametrize("kills_count", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_every_reader_sees_every_kill_and_the_sampler_that_follows(
    light: LightSamplers,
    name: str,
    readers: Callable[..., list[ReaderProcess]],
    kills_count: int,
    record_property: Callable[[str, object], None],
) -> None:
    """No wrong answer, no torn sample, no error; nobody attaches again."""
    delays = every_death_is_seen(light, name, readers("follow"), kills_count)

    assert len(delays) == 2 * READERS_COUNT * (kills_count + 1)
    median = statistics.median(delays)
    record_property("median_ms_from_kill_to_answer", median)
    print(f"\nkill to answer: median {median:.2f} ms, worst {max(delays):.1f} ms, {len(delays)} answers")
    if kills_count >= 300:
        assert median < 5.0


def test_an_oom_kill_in_a_real_cgroup_is_a_death_like_any_other(light: LightSamplers, name: str) -> None:
    """The kernel kills it in the middle of whatever it does; the test removes the cgroup."""
    if not is_root():
        pytest.skip("making cgroups needs root")
    with new_group("memory") as group:
        started = light.one(name, leak_bytes=2**20, interval_seconds=0.005, at_ns=0)
        fd = os.pidfd_open(started.pid)
        try:
            with attach(name, on_stale="always") as reader:
                assert reader.should_prune() is False
                group.limit_memory(32 * 2**20)
                (group.path / "cgroup.procs").write_text(str(started.pid))
                assert select.select([fd], [], [], 30.0)[0], "it was not killed"
                assert reader.should_prune() is True
                assert reader.status().state == STALE
                snapshot = reader.snapshot()
                assert snapshot.stale
                assert snapshot.other["cpu.m0_bytes"] == snapshot.sequence
                assert oom_kills_in(group.path) == 1
                assert light.one(name).taken_over
                assert reader.should_prune() is False
        finally:
            os.close(fd)


def oom_kills_in(path: Path) -> int:
    """Return how many processes of the cgroup at *path* the kernel has killed for its memory."""
    events = path / "memory.oom_control"  # v1; in v2 memory.events has the same line
    lines = (events if events.exists() else path / "memory.events").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def test_the_history_goes_on_over_a_death(light: LightSamplers, name: str) -> None:
    first = light.one(name)
    reader = attach(name)
    end(first.pid)
    head = reader.snapshot().sequence
    second = light.one(name)

    assert second.taken_over
    assert second.head == head + 1
    assert second.epoch != first.epoch
    numbers = reader.history(["cpu.m0_bytes"]).sequences
    assert numbers == list(range(numbers[0], numbers[-1] + 1)), "without a hole"
    assert numbers[0] <= head < numbers[-1]
    status = reader.status()
    assert (status.state, status.restarts, status.pid, status.epoch) == (LIVE, 1, second.pid, second.epoch)


def test_a_cached_question_outlives_restarts_and_layout_changes(light: LightSamplers, name: str) -> None:
    """The function is all that a worker keeps."""
    should_prune = attach(name, watch=["cpu"], on_stale="never", required=False, timeout=0.0).should_prune
    assert should_prune() is False, "no sampler yet"
    for metric_count in (3, 3, 5):
        started = light.one(name, metric_count=metric_count)
        wait_until(should_prune)
        end(started.pid)
        assert should_prune() is False


def test_a_changed_layout_retires_the_old_segment_and_readers_move_on(light: LightSamplers, name: str) -> None:
    first = light.one(name, metric_count=3)
    reader = attach(name)
    old = reader.view()
    end(first.pid)
    assert reader.status().state == STALE
    second = light.one(name, metric_count=5)

    assert not second.taken_over
    wait_until(lambda: reader.status().state == LIVE)
    assert len(reader.snapshot().other) == 5
    assert reader.view().identity != old.identity
    assert old.word(layout.STATE_OFFSET) == layout.RETIRED


def test_a_clean_stop_is_told_from_a_death(light: LightSamplers, name: str) -> None:
    started = light.one(name)
    reader = attach(name, on_stale="always")
    last = reader.snapshot().sequence
    end(started.pid, signal.SIGTERM)

    assert reader.status().state == STOPPED
    assert reader.should_prune() is True
    snapshot = reader.snapshot()
    assert snapshot.stale
    assert snapshot.sequence >= last
    assert not os.path.exists(f"/dev/shm/shm-monitor.{os.getuid()}.{name}"), "the name is gone"


def test_consistent_samples_against_a_sampler_going_flat_out(
    light: LightSamplers, name: str, readers: Callable[..., list[ReaderProcess]]
) -> None:
    read_against_flat_out(light, name, readers, seconds=2.0)


@pytest.mark.slow
def test_consistent_samples_against_a_sampler_going_flat_out_for_long(
    light: LightSamplers, name: str, readers: Callable[..., list[ReaderProcess]]
) -> None:
    read_against_flat_out(light, name, readers, seconds=20.0)


def read_against_flat_out(
    light: LightSamplers, name: str, readers: Callable[..., list[ReaderProcess]], seconds: float
) -> None:
    """Each value is a function of the sample number; every reader makes progress."""
    light.one(name, interval_seconds=0.0, slot_count=8)
    for reader in readers("read", seconds):
        counts = reader.finish()
        assert (counts["torn"], counts["went_back"]) == (0, 0)
        assert counts["new"] > 1  # some thousands where a core is free, 16 beside ten other programs
        assert counts["degraded"] <= counts["snapshots"] / 4
