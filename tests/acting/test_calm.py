"""Waiting for calm, and being called once per episode."""

from __future__ import annotations

import asyncio
import functools
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING

import pytest

import shm_monitor as sm
from tests.support.fake_sampler import FakeSampler
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_a_throttled_iterable_waits_for_calm_but_for_the_first(pressed: sm.Reader) -> None:
    began = time.monotonic()
    assert list(sm.throttle([1, 2, 3], reader=pressed, max_wait=0.05, min_running=1)) == [1, 2, 3]
    assert time.monotonic() - began >= 0.1


def test_a_throttled_iterable_has_a_length_for_progress_bars(absent: sm.Reader) -> None:
    assert len(sm.throttle([1, 2, 3], reader=absent)) == 3  # type: ignore[arg-type] # a list has one
    with pytest.raises(TypeError):
        len(sm.throttle(iter([1]), reader=absent))  # type: ignore[arg-type] # an iterator has none
    assert list(sm.throttle(iter([1]), reader=absent)) == [1]


@pytest.mark.parametrize("pool", [ThreadPool, ThreadPoolExecutor])
def test_pools_take_all_items_before_a_task_is_done_so_throttling_them_is_in_vain(
    pool: type[ThreadPool | ThreadPoolExecutor], absent: sm.Reader
) -> None:
    """Which is what the documents say of them."""
    taken: list[int] = []
    may_end = threading.Event()

    def items() -> Iterator[int]:
        for number in range(40):
            taken.append(number)
            yield number

    with pool(2) as workers:
        take = workers.imap if isinstance(workers, ThreadPool) else workers.map
        results = take(lambda _: may_end.wait(60.0), sm.throttle(items(), reader=absent))
        wait_until(lambda: len(taken) == 40)
        may_end.set()
        assert list(results) == [True] * 40


def test_calm_says_whether_it_is(pressed: sm.Reader, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sm.calm(0.01, reader=pressed) is False
    monkeypatch.setenv("SHM_MONITOR_NAME", f"{name}-none")
    assert sm.calm(0.01) is True, "without a sampler nothing presses"


def test_that_there_is_no_sampler_is_said_once_and_not_in_each_call(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SHM_MONITOR_NAME", f"{name}-none")
    assert [sm.calm(0.01) for _ in range(3)] == [True] * 3
    assert asyncio.run(sm.calm_async(0.01)) is True
    assert caplog.text.count("is absent") == 1


def test_calm_asks_the_default_sampler_of_the_moment(pressed: sm.Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHM_MONITOR_NAME", f"{pressed.name}-none")
    assert sm.calm(0.0) is True
    monkeypatch.setenv("SHM_MONITOR_NAME", pressed.name)
    assert sm.calm(0.0) is False


def test_a_coroutine_may_await_calm_while_others_go_on(
    pressed: sm.Reader, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHM_MONITOR_NAME", f"{name}-none")

    async def ask() -> tuple[bool, bool, list[int]]:
        turns: list[int] = []

        async def count() -> None:
            while True:
                turns.append(len(turns))
                await asyncio.sleep(0)

        other = asyncio.create_task(count())
        still_pressed = await sm.calm_async(0.01, reader=pressed)
        other.cancel()
        return still_pressed, await sm.calm_async(0.01), turns

    still_pressed, without_sampler, turns = asyncio.run(ask())
    assert (still_pressed, without_sampler) == (False, True)
    assert len(turns) > 1


def test_a_function_is_called_for_the_episode_that_is_open_when_it_is_decorated(pressed: sm.Reader) -> None:
    called: queue.Queue[sm.Episode] = queue.Queue()
    sm.when_pressed(reader=pressed)(called.put)
    assert called.get(timeout=30.0) == pressed.episode()


def test_a_function_is_called_once_per_episode(name: str) -> None:
    sampler = FakeSampler(name, observation_period=2.0)
    sampler.feed(50.0)
    called: list[sm.Episode] = []
    with sm.attach(name) as reader:

        @sm.when_pressed(reader=reader)
        def shed(episode: sm.Episode) -> None:
            called.append(episode)

        for number in (1, 2):
            sampler.feed(91.0, 98.0)
            wait_until(lambda number=number: len(called) == number)  # type: ignore[misc] # a default of a lambda
            sampler.feed(98.0, 91.0, 91.0)
            while reader.should_prune():
                sampler.feed(50.0)
            time.sleep(0)
        assert called[1].number > called[0].number
        assert functools.reduce(lambda _, one: one.limit, called, "") == "memory"
    sampler.close()
