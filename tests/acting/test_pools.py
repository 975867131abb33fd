"""An executor in front of another one behaves as that one does, but for how much it takes on."""

from __future__ import annotations

import concurrent.futures
import itertools
import multiprocessing
import os
import signal
import threading
import time
import weakref
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from concurrent.futures.thread import BrokenThreadPool
from typing import TYPE_CHECKING

import pytest

import shm_monitor as sm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAIT_SECONDS = 60.0


def square(number: int) -> int:
    return number * number


def fail(number: int) -> int:
    raise KeyError(number)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Gate:
    """Tasks that are counted while they wait to be let go."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self._lock = threading.Lock()
        self.open = threading.Event()

    def task(self) -> None:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        assert self.open.wait(WAIT_SECONDS)
        with self._lock:
            self.inside -= 1


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_no_more_run_than_the_limit_and_all_are_done(absent: sm.Reader) -> None:
    gate = Gate()
    with sm.BoundedExecutor(ThreadPoolExecutor(8), limit=3, reader=absent) as pool:
        submitting = in_thread(lambda: [pool.submit(gate.task) for _ in range(10)])
        wait_until(lambda: gate.inside == 3)
        assert pool.running == 3
        gate.open.set()
        submitting.join(WAIT_SECONDS)
        wait_until(lambda: pool.running == 0)
    assert gate.most == 3


@pytest.mark.processes
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_give_results_and_exceptions(absent: sm.Reader, method: str) -> None:
    processes = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method))
    with sm.BoundedExecutor(processes, limit=2, reader=absent) as pool:
        assert list(pool.map(square, range(7), chunksize=3)) == [0, 1, 4, 9, 16, 25, 36]
        with pytest.raises(KeyError, match="5"):
            pool.submit(fail, 5).result(WAIT_SECONDS)
        assert pool.running == 0


class SameThread(Executor):
    """Somebody's executor: runs each task at once."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def] # as short as somebody's would be
        future: Future[object] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_any_executor_may_stand_behind(absent: sm.Reader) -> None:
    with sm.BoundedExecutor(SameThread(), limit=1, reader=absent) as pool:
        assert list(pool.map(square, range(4))) == [0, 1, 4, 9]
        assert pool.running == 0


def test_a_task_that_raises_makes_room(absent: sm.Reader) -> None:
    with sm.BoundedExecutor(ThreadPoolExecutor(1), limit=1, reader=absent, max_wait=None) as pool:
        failed = [pool.submit(fail, number) for number in range(5)]
        assert [type(one.exception(WAIT_SECONDS)) for one in failed] == [KeyError] * 5


def test_a_cancelled_task_makes_room(absent: sm.Reader) -> None:
    gate = Gate()
    with sm.BoundedExecutor(ThreadPoolExecutor(1), limit=2, reader=absent, max_wait=None) as pool:
        pool.submit(gate.task)
        second = pool.submit(gate.task)
        assert second.cancel()
        assert pool.running == 1
        third = pool.submit(square, 3)
        gate.open.set()
        assert third.result(WAIT_SECONDS) == 9
    assert second.cancelled()


def test_who_waits_is_let_in_by_a_cancellation(absent: sm.Reader) -> None:
    gate = Gate()
    with sm.BoundedExecutor(ThreadPoolExecutor(1), limit=2, reader=absent, max_wait=None) as pool:
        pool.submit(gate.task)
        second = pool.submit(gate.task)
        submitting = in_thread(lambda: pool.submit(square, 3))
        wait_until(lambda: pool._admission._waiting == 1)
        assert second.cancel()
        submitting.join(WAIT_SECONDS)
        assert pool.running == 2
        gate.open.set()


def test_threads_that_cannot_begin_break_the_pool_and_keep_nobody_waiting(absent: sm.Reader) -> None:
    with sm.BoundedExecutor(
        ThreadPoolExecutor(1, initializer=fail, initargs=(1,)), limit=1, reader=absent, max_wait=None
    ) as pool:
        assert isinstance(pool.submit(square, 1).exception(WAIT_SECONDS), BrokenThreadPool)
        with pytest.raises(BrokenThreadPool):
            pool.submit(square, 1)
        assert pool.running == 0


def test_a_result_that_nobody_holds_is_gone(absent: sm.Reader) -> None:
    with sm.BoundedExecutor(ThreadPoolExecutor(1), limit=4, reader=absent) as pool:
        result = weakref.ref(pool.submit(Gate).result(WAIT_SECONDS))
        wait_until(lambda: result() is None)


def test_while_pressed_a_task_waits_and_is_let_in_after_max_wait(pressed: sm.Reader) -> None:
    gate = Gate()
    with sm.BoundedExecutor(ThreadPoolExecutor(4), limit=4, reader=pressed, max_wait=0.05) as pool:
        pool.submit(gate.task)
        pool.submit(gate.task)
        wait_until(lambda: gate.inside == 2)
        gate.open.set()


def test_while_pressed_a_task_may_be_refused(pressed: sm.Reader) -> None:
    gate = Gate()
    with sm.BoundedExecutor(
        ThreadPoolExecutor(4), limit=4, reader=pressed, max_wait=0.05, min_running=2, on_timeout="raise"
    ) as pool:
        for _ in range(2):
            pool.submit(gate.task)
        with pytest.raises(TimeoutError, match="2 tasks run"):
            pool.submit(gate.task)
        gate.open.set()


def test_a_task_that_submits_to_its_own_pool_does_not_wait(absent: sm.Reader) -> None:
    with sm.BoundedExecutor(ThreadPoolExecutor(4), limit=1, reader=absent, max_wait=None) as pool:

        def nested(depth: int) -> int:
            return depth if depth == 0 else depth + pool.submit(nested, depth - 1).result(WAIT_SECONDS)

        assert pool.submit(nested, 3).result(WAIT_SECONDS) == 6


def test_a_task_of_another_pool_waits(absent: sm.Reader) -> None:
    gate = Gate()
    inner = sm.BoundedExecutor(ThreadPoolExecutor(2), limit=1, reader=absent, max_wait=0.05, on_timeout="raise")
    with inner, sm.BoundedExecutor(ThreadPoolExecutor(1), limit=1, reader=absent) as outer:
        inner.submit(gate.task)
        refused = outer.submit(inner.submit, gate.task)
        assert isinstance(refused.exception(WAIT_SECONDS), TimeoutError)
        gate.open.set()


@pytest.mark.processes
def test_a_broken_pool_says_so_and_keeps_nobody_waiting(absent: sm.Reader) -> None:
    with sm.BoundedExecutor(ProcessPoolExecutor(1), limit=1, reader=absent, max_wait=None) as pool:
        assert isinstance(pool.submit(die).exception(WAIT_SECONDS), BrokenProcessPool)
        for _ in range(3):
            with pytest.raises(BrokenProcessPool):
                pool.submit(square, 1)
        assert pool.running == 0


def test_a_shutdown_wakes_who_waits(absent: sm.Reader) -> None:
    gate = Gate()
    pool = sm.BoundedExecutor(ThreadPoolExecutor(1), limit=1, reader=absent, max_wait=None)
    pool.submit(gate.task)
    raised: list[BaseException] = []

    def submit() -> None:
        try:
            pool.submit(square, 1)
        except RuntimeError as error:
            raised.append(error)

    waiting = in_thread(submit)
    wait_until(lambda: pool._admission._waiting == 1)
    pool.shutdown(wait=False, cancel_futures=True)
    waiting.join(WAIT_SECONDS)
    assert "after shutdown" in str(raised[0])
    gate.open.set()
    pool.shutdown()


def test_map_takes_from_its_iterable_only_as_results_are_taken(absent: sm.Reader) -> None:
    """So that a progress bar moves, and a million tasks are not in memory."""
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in itertools.count():
            taken.append(number)
            yield number

    with sm.BoundedExecutor(ThreadPoolExecutor(2), limit=2, reader=absent) as pool:
        results = pool.map(square, items())
        assert [next(results) for _ in range(10)] == [number * number for number in range(10)]
        assert len(taken) < 100
        results.close()  # type: ignore[attr-defined] # a generator
        wait_until(lambda: pool.running == 0)


def test_map_obeys_its_timeout_and_refuses_an_impossible_chunk(absent: sm.Reader) -> None:
    gate = Gate()
    with sm.BoundedExecutor(ThreadPoolExecutor(1), limit=1, reader=absent) as pool:
        with pytest.raises(concurrent.futures.TimeoutError):
            list(pool.map(lambda _: gate.task(), [1], timeout=0.01))
        with pytest.raises(ValueError, match="chunksize=0"):
            pool.map(square, [1], chunksize=0)
        gate.open.set()


def test_settings_that_make_no_sense_are_refused(absent: sm.Reader) -> None:
    with ThreadPoolExecutor(1) as threads:
        with pytest.raises(ValueError, match="on_timeout"):
            sm.BoundedExecutor(threads, limit=1, reader=absent, on_timeout="wait")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="min_running"):
            sm.BoundedExecutor(threads, limit=1, reader=absent, min_running=0)


@pytest.mark.processes
def test_a_pool_of_multiprocessing_takes_throttled_tasks(absent: sm.Reader) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert list(pool.imap(square, sm.throttle(range(10), reader=absent))) == [number**2 for number in range(10)]


def test_joblib_takes_throttled_tasks(absent: sm.Reader) -> None:
    joblib = pytest.importorskip("joblib")
    tasks = (joblib.delayed(square)(number) for number in sm.throttle(range(10), reader=absent))

    run = joblib.Parallel(n_jobs=2, batch_size=1, pre_dispatch=2, backend="threading")
    assert run(tasks) == [number**2 for number in range(10)]
