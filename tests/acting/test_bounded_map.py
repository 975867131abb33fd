"""A map over a pool of multiprocessing takes on no more than there is room for, and loses nothing."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING

import pytest

import shm_monitor as sm
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.pool import Pool

pytestmark = pytest.mark.processes

METHODS = ("fork", "spawn", "forkserver")


def square(number: int) -> int:
    return number * number


def refuse_five(number: int) -> int:
    if number == 5:
        raise KeyError(number)
    return number


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def leave(number: int) -> int:
    os._exit(number)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """Workers that no test ends."""
    with multiprocessing.get_context("fork").Pool(3) as made:
        yield made


@pytest.fixture
def threads() -> Iterator[ThreadPool]:
    with ThreadPool(4) as made:
        yield made


@pytest.mark.parametrize("method", METHODS)
def test_results_come_in_order_whatever_starts_the_workers(absent: sm.Reader, method: str) -> None:
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert list(sm.bounded_map(pool, square, range(7), reader=absent)) == [0, 1, 4, 9, 16, 25, 36]
        assert sorted(sm.bounded_map(pool, square, range(7), ordered=False, chunksize=3, reader=absent)) == [
            0, 1, 4, 9, 16, 25, 36,
        ]  # fmt: skip


def test_results_come_as_they_are_done_where_their_order_does_not_matter(
    threads: ThreadPool, absent: sm.Reader
) -> None:
    first_may_end = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert first_may_end.wait(60.0)
        return number

    results = sm.bounded_map(threads, work, range(4), ordered=False, reader=absent)
    assert {next(results) for _ in range(3)} == {1, 2, 3}
    first_may_end.set()
    assert list(results) == [0]


def test_items_without_an_end_are_taken_only_as_results_are(pool: Pool, absent: sm.Reader) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in itertools.count():
            taken.append(number)
            yield number

    results = sm.bounded_map(pool, square, items(), limit=2, buffersize=3, reader=absent)
    assert taken == []
    assert [next(results) for _ in range(10)] == [square(number) for number in range(10)]
    assert len(taken) <= 10 + 3
    results.close()
    assert list(results) == []


def test_no_more_tasks_than_the_limit_run_at_once(threads: ThreadPool, absent: sm.Reader) -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return number

    assert list(sm.bounded_map(threads, work, range(20), limit=2, reader=absent)) == list(range(20))
    assert most == 2


def test_no_more_results_wait_than_there_is_a_buffer_for(threads: ThreadPool, absent: sm.Reader) -> None:
    begun: list[int] = []
    results = sm.bounded_map(threads, begun.append, itertools.count(), buffersize=3, reader=absent)
    next(results)
    wait_until(lambda: len(begun) >= 3)
    next(results)
    next(results)
    assert len(begun) <= 3 + 3


def test_under_pressure_one_task_runs_at_a_time_and_a_wait_has_an_end(threads: ThreadPool, pressed: sm.Reader) -> None:
    may_end = threading.Event()
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        assert may_end.wait(60.0)
        return number

    def of(max_wait: float | None) -> list[int]:
        return list(sm.bounded_map(threads, work, range(3), reader=pressed, max_wait=max_wait))

    with ThreadPoolExecutor(1) as consumer:
        patient = consumer.submit(of, None)
        wait_until(lambda: begun == [0])
        time.sleep(0.3)
        assert begun == [0]
        may_end.set()
        assert patient.result(60.0) == [0, 1, 2]
        begun.clear()
        may_end.clear()
        impatient = consumer.submit(of, 0.05)
        wait_until(lambda: sorted(begun) == [0, 1, 2])
        may_end.set()
        assert impatient.result(60.0) == [0, 1, 2]


@pytest.mark.parametrize("ordered", [True, False])
def test_what_a_task_raises_comes_in_its_place_and_the_others_after_it(
    pool: Pool, absent: sm.Reader, ordered: bool
) -> None:
    results = sm.bounded_map(pool, refuse_five, range(8), ordered=ordered, reader=absent)
    found: list[int] = []
    while True:
        try:
            found.append(next(results))
        except StopIteration:
            break
        except KeyError as error:
            found.append(-error.args[0])
    assert sorted(found) == [-5, 0, 1, 2, 3, 4, 6, 7]
    assert not ordered or found == [0, 1, 2, 3, 4, -5, 6, 7]


def test_what_the_items_raise_comes_after_the_results_before_it(pool: Pool, absent: sm.Reader) -> None:
    def items() -> Iterator[int]:
        yield 2
        yield 3
        raise OSError("no more files")

    results = sm.bounded_map(pool, square, items(), reader=absent)
    assert [next(results), next(results)] == [4, 9]
    with pytest.raises(OSError, match="no more files"):
        next(results)
    assert list(results) == []


def test_what_cannot_be_sent_is_an_error_of_its_task(pool: Pool, absent: sm.Reader) -> None:
    results = sm.bounded_map(pool, lambda number: number, [1], reader=absent)  # a lambda cannot be pickled
    with pytest.raises(Exception, match="lambda"):
        next(results)
    assert list(results) == []


def test_who_closes_early_leaves_a_pool_that_works(absent: sm.Reader) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        results = sm.bounded_map(pool, square, itertools.count(), reader=absent)
        assert next(results) == 0
        results.close()
        assert list(results) == []
        assert pool.map(square, [3]) == [9]


def test_a_closed_pool_gives_what_it_has_and_then_refuses(absent: sm.Reader) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        results = sm.bounded_map(pool, square, range(1000), reader=absent)
        found = [next(results)]
        pool.close()
        with pytest.raises(ValueError, match="not running"):
            found.extend(results)
        assert list(results) == []
        pool.join()


@pytest.mark.parametrize("ordered", [True, False])
def test_a_terminated_pool_ends_the_wait(absent: sm.Reader, ordered: bool) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        results = sm.bounded_map(pool, nap, [0.0, 3600.0, 3600.0], ordered=ordered, reader=absent)
        assert next(results) == 0.0
        threading.Timer(0.2, pool.terminate).start()
        with pytest.raises(BrokenProcessPool, match=r"terminated|killed by SIGTERM"):
            next(results)
        assert list(results) == []


@pytest.mark.parametrize(("work", "how"), [(die, "was killed by SIGKILL"), (leave, "ended with status 7")])
def test_a_worker_that_dies_ends_the_wait_for_its_task(absent: sm.Reader, work: Callable[[int], int], how: str) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        results = sm.bounded_map(pool, work, [7], reader=absent)
        with pytest.raises(BrokenProcessPool, match=how):
            next(results)


def test_workers_that_end_after_their_tasks_are_no_trouble(absent: sm.Reader) -> None:
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        assert list(sm.bounded_map(pool, nap, [0.05] * 8, reader=absent)) == [0.05] * 8


def test_without_items_there_are_no_results(pool: Pool, absent: sm.Reader) -> None:
    assert list(sm.bounded_map(pool, square, [], reader=absent)) == []


@pytest.mark.parametrize("wrong", [{"chunksize": 0}, {"limit": 0}, {"buffersize": 0}])
def test_bounds_are_one_at_least(pool: Pool, absent: sm.Reader, wrong: dict[str, int]) -> None:
    (key,) = wrong
    with pytest.raises(ValueError, match=f"{key}=0; allowed is 1 or more"):
        sm.bounded_map(pool, square, [1], reader=absent, **wrong)  # type: ignore[arg-type] # as they are


def test_an_executor_is_no_pool(absent: sm.Reader) -> None:
    with ThreadPoolExecutor(1) as executor, pytest.raises(TypeError, match="BoundedExecutor"):
        sm.bounded_map(executor, square, [1], reader=absent)  # type: ignore[arg-type] # which is the point
