"""Pressure has a beginning and a number, and functions are told of it."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from typing import TYPE_CHECKING

import pytest

import shm_monitor as sm
from shm_monitor.worker.pausing import wait_for_calm, wait_for_calm_async
from tests.support.fake_sampler import FakeSampler

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_SECONDS = 30.0
SETTINGS = {"observation_period": 4.0, "target_utilization": 0.9, "max_cpu_usage_percent": 50.0}


@pytest.fixture
def sampler(name: str) -> Iterator[FakeSampler]:
    made = FakeSampler(name, **SETTINGS)  # type: ignore[arg-type]
    made.feed(*[50.0] * 6)
    yield made
    made.close()


@pytest.fixture
def reader(name: str, sampler: FakeSampler) -> Iterator[sm.Reader]:
    with sm.attach(name) as made:
        yield made


def press(sampler: FakeSampler, reader: sm.Reader, usage: float = 91.0) -> sm.Episode:
    """Feed until it presses; return the episode."""
    while reader.episode() is None:
        sampler.feed(usage)
    found = reader.episode()
    assert found is not None
    return found


def calm(sampler: FakeSampler, reader: sm.Reader) -> None:
    while reader.should_prune():
        sampler.feed(50.0)


def test_there_is_no_episode_while_calm(reader: sm.Reader) -> None:
    assert reader.episode() is None


def test_an_episode_has_one_number_from_its_beginning_to_its_end(sampler: FakeSampler, reader: sm.Reader) -> None:
    seen = [press(sampler, reader)]
    for usage in (92.0, 98.0, 91.0, 85.0, 50.0, 50.0):
        sampler.feed(usage)
        found = reader.episode()
        assert found is not None
        seen.append(found)

    assert {one.number for one in seen} == {seen[0].number}
    assert {one.since for one in seen} == {seen[0].since}
    assert [one.level for one in seen[:3]] == ["prune", "prune", "critical"]
    assert (seen[0].limit, seen[0].reason) == ("memory", "level")
    assert seen[0].since == pytest.approx(time.time(), abs=60)


def test_the_next_episode_has_a_larger_number(sampler: FakeSampler, reader: sm.Reader) -> None:
    first = press(sampler, reader)
    calm(sampler, reader)
    second = press(sampler, reader)

    assert second.number > first.number


def test_every_process_sees_the_same_number(sampler: FakeSampler, reader: sm.Reader, name: str) -> None:
    found = press(sampler, reader)

    with sm.attach(name, watch=["memory"]) as other:
        assert other.episode() == found
    with sm.attach(name, watch=["cpu"]) as other:
        assert other.episode() is None


def test_of_two_limits_the_episode_is_that_which_began_first(sampler: FakeSampler, reader: sm.Reader) -> None:
    first = press(sampler, reader)
    sampler.readings["cpu.cpu_percent"] = 99.0
    sampler.feed(*[91.0] * 8)
    assert set(reader.reasons()) >= {"level"}
    assert reader.episode() == first
    sampler.feed(*[50.0] * 8)
    second = reader.episode()

    assert second is not None
    assert second.limit == "cpu"
    assert second.number > first.number


def test_a_dead_sampler_has_no_episode_but_for_who_holds(name: str) -> None:
    sampler = FakeSampler(name, **SETTINGS)  # type: ignore[arg-type]
    sampler.feed(50.0)
    with (
        sm.attach(name) as never,
        sm.attach(name, on_stale="hold") as hold,
        sm.attach(name, on_stale="raise") as strict,
    ):
        found = press(sampler, never)
        sampler.close()
        assert never.episode() is None
        assert hold.episode() == found
        assert strict.episode() is None, "should_prune() raises; this only says what is known"


def test_without_a_sampler_there_is_no_episode(name: str) -> None:
    with sm.attach(name, timeout=0.0, required=False) as reader:
        assert reader.episode() is None
        assert reader.shed_bytes() == 0


def test_what_is_over_the_target_is_to_be_shed(sampler: FakeSampler, reader: sm.Reader) -> None:
    """The limit is 90 of 100, the target 81."""
    assert reader.shed_bytes() == 0
    sampler.feed(85.0)
    assert reader.shed_bytes() == 4
    sampler.feed(98.0)
    assert reader.shed_bytes() == 17


def test_a_function_is_told_of_beginning_change_and_end(sampler: FakeSampler, reader: sm.Reader) -> None:
    told: queue.Queue[sm.Episode | None] = queue.Queue()
    reader.on_change(told.put)
    begun = press(sampler, reader)
    assert told.get(timeout=WAIT_SECONDS) == begun
    sampler.feed(98.0)
    worse = told.get(timeout=WAIT_SECONDS)
    assert worse is not None
    assert (worse.number, worse.level) == (begun.number, "critical")
    calm(sampler, reader)
    while (last := told.get(timeout=WAIT_SECONDS)) is not None:
        assert last.number == begun.number
    assert told.empty()


def test_a_function_that_comes_during_an_episode_is_called_for_it(sampler: FakeSampler, reader: sm.Reader) -> None:
    """A worker that was restarted under pressure; the second function finds the thread of the first one running."""
    begun = press(sampler, reader)
    first: queue.Queue[tuple[str, sm.Episode | None]] = queue.Queue()
    second: queue.Queue[tuple[str, sm.Episode | None]] = queue.Queue()
    for calls in (first, second):
        reader.on_change(lambda found, calls=calls: calls.put((threading.current_thread().name, found)))  # type: ignore[misc] # a default of a lambda
        assert calls.get(timeout=WAIT_SECONDS) == ("shm-monitor changes", begun)
    calm(sampler, reader)
    for calls in (first, second):
        assert calls.get(timeout=WAIT_SECONDS) == ("shm-monitor changes", None), "and once only"


def test_a_function_that_comes_while_calm_is_not_called(sampler: FakeSampler, reader: sm.Reader) -> None:
    calls: queue.Queue[sm.Episode | None] = queue.Queue()
    reader.on_change(calls.put)
    begun = press(sampler, reader)
    assert calls.get(timeout=WAIT_SECONDS) == begun


def test_a_function_that_raises_keeps_no_other_from_being_told(
    sampler: FakeSampler, reader: sm.Reader, caplog: pytest.LogCaptureFixture
) -> None:
    told: queue.Queue[object] = queue.Queue()

    def broken(found: sm.Episode | None) -> None:
        raise RuntimeError("broken")

    reader.on_change(broken)
    reader.on_change(told.put)
    press(sampler, reader)
    assert told.get(timeout=WAIT_SECONDS) is not None
    calm(sampler, reader)
    assert told.get(timeout=WAIT_SECONDS) is None
    assert "a function that is called under pressure raised" in caplog.text


def test_the_thread_ends_with_the_last_function_and_with_the_reader(
    sampler: FakeSampler, reader: sm.Reader, name: str
) -> None:
    wait_until_no_threads()  # of the tests before
    stop = reader.on_change(lambda _: None)
    assert threads() == 1
    stop()
    wait_until_no_threads()
    reader.on_change(lambda _: None)
    assert threads() == 1
    reader.close()
    wait_until_no_threads()


def threads() -> int:
    return sum(one.name == "shm-monitor changes" for one in threading.enumerate())


def wait_until_no_threads() -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while threads():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.processes
def test_a_forked_child_asks_anew(sampler: FakeSampler, reader: sm.Reader) -> None:
    reader.on_change(lambda _: None)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        reader.on_change(lambda _: os.write(write_end, b"told"))
        os.write(write_end, b"ready")
        time.sleep(WAIT_SECONDS)
        os._exit(1)
    try:
        assert os.read(read_end, 5) == b"ready"
        press(sampler, reader)
        assert os.read(read_end, 4) == b"told"
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(read_end)
        os.close(write_end)


def test_a_call_waits_until_the_pressure_is_over(sampler: FakeSampler, reader: sm.Reader) -> None:
    calls: queue.Queue[int] = queue.Queue()

    @reader.paused_while_pressed(max_wait=None)
    def work(number: int) -> int:
        """Put a number."""
        calls.put(number)
        return number + 1

    assert work(1) == 2
    assert calls.get_nowait() == 1
    press(sampler, reader)
    thread = threading.Thread(target=work, args=(2,), daemon=True)
    thread.start()
    sampler.feed(91.0)
    assert thread.is_alive()
    assert calls.empty()
    calm(sampler, reader)
    assert calls.get(timeout=WAIT_SECONDS) == 2
    thread.join(WAIT_SECONDS)
    assert work.__doc__ == "Put a number."


def test_no_wait_is_for_ever(sampler: FakeSampler, reader: sm.Reader) -> None:
    press(sampler, reader)

    assert reader.paused_while_pressed(max_wait=0.05)(int)("7") == 7
    assert wait_for_calm(reader, 0.0) is False


async def _twice(reader: sm.Reader, sampler: FakeSampler) -> tuple[bool, bool]:
    first = await wait_for_calm_async(reader, 0.01)
    calm(sampler, reader)
    return first, await wait_for_calm_async(reader, None)


def test_an_event_loop_waits_as_well(sampler: FakeSampler, reader: sm.Reader) -> None:
    press(sampler, reader)
    assert asyncio.run(_twice(reader, sampler)) == (False, True)
