"""Reservations: a task begins where its memory is there."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shm_monitor as sm
from shm_monitor.acting.reservations.rule import MB, Holders, Kind, fits, forecast, learned, will_take
from tests.support.cgroups import new_group

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = st.integers(0, 1 << 40)
HOLDER = "import shm_monitor as sm, sys\nwith sm.reserve(1 << 40, key=sys.argv[1]):\n print('in', flush=True)\n input()"


@pytest.fixture
def key() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def holder(key: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a reservation of more memory than there is."""
    command = [sys.executable, "-c", HOLDER, key]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        yield process
        process.kill()


@sm.bounded
def doubled(number: int) -> int:
    return 2 * number


@given(st.lists(SIZES, min_size=1, max_size=90), SIZES)
def test_the_forecast_is_never_below_the_largest_of_the_last_tasks(grown: list[int], expected: int) -> None:
    kind = Kind(7)
    for one in grown:
        kind = learned(kind, expected, one)
    assert forecast(kind) >= max(grown)


@given(SIZES, SIZES, st.integers(0, 1))
def test_a_task_is_owed_what_was_expected_and_never_less_than_it_has(each: int, expected: int, grows: int) -> None:
    assert will_take(each, expected, is_growing=bool(grows)) >= max(each, expected)


@given(SIZES, SIZES, SIZES)
def test_what_others_were_promised_is_never_promised_again(owed: int, ahead: int, grown: int) -> None:
    kind = learned(Kind(7), 0, grown)
    needed = fits(kind, 0, Holders(owed_bytes=owed), kept_bytes=0, ahead_bytes=ahead)
    assert needed is not None
    assert needed >= owed + ahead + grown


@given(SIZES, st.integers(1, 64))
def test_a_known_kind_is_never_judged_by_an_unknown_one(grown: int, fresh: int) -> None:
    known, unknown = learned(Kind(7), 0, grown), Kind(8)
    crowd = Holders(same=(0,) * fresh, fresh=fresh, growing=True)
    assert fits(known, 0, crowd, kept_bytes=0, ahead_bytes=0) == forecast(known)
    assert fits(unknown, 0, crowd, kept_bytes=0, ahead_bytes=0) is None


def test_one_large_among_many_small_is_remembered_and_forgotten_after_two_windows() -> None:
    kind = learned(Kind(7), 0, 100 * MB)
    for _ in range(98):
        kind = learned(kind, 100 * MB, MB)
    assert forecast(kind) >= 100 * MB
    for _ in range(201):
        kind = learned(kind, 100 * MB, MB)
    assert forecast(kind) < 2 * MB


@pytest.mark.processes
def test_who_waits_longer_than_max_wait_gets_an_error_that_says_what_to_do(
    key: str, holder: subprocess.Popen[str]
) -> None:
    with (
        pytest.raises(sm.MemoryWaitError, match=r"MB are free .* try: a larger max_wait"),
        sm.reserve(key=key, max_wait=0),
    ):
        pass


@pytest.mark.processes
def test_the_promise_of_a_killed_process_is_gone(key: str, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    with sm.reserve(key=key, max_wait=20):
        pass


@pytest.mark.processes
def test_the_promise_of_a_process_that_ends_its_task_is_gone(key: str, holder: subprocess.Popen[str]) -> None:
    holder.communicate("\n")
    assert holder.returncode == 0
    with sm.reserve(key=key, max_wait=20):
        pass


def test_a_reservation_inside_another_is_none_of_its_own(key: str) -> None:
    with sm.reserve(1 << 40, key=key), sm.reserve(1 << 40, key=key, max_wait=0):
        pass


@pytest.mark.processes
def test_a_child_that_is_forked_inside_a_reservation_makes_one_of_its_own(key: str) -> None:
    with sm.reserve(key=key):
        child = os.fork()
        if child == 0:
            with sm.reserve(1 << 40, key=key, max_wait=20):
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


def test_coroutines_of_one_loop_all_come_in(key: str) -> None:
    async def one(number: int) -> int:
        async with sm.reserve(MB, key=key):
            await asyncio.sleep(0)
            return number

    async def main() -> list[int]:
        return await asyncio.gather(*(one(number) for number in range(20)))

    assert asyncio.run(main()) == list(range(20))


def test_threads_all_come_in(key: str) -> None:
    def one(number: int) -> int:
        with sm.reserve(MB, key=key):
            return number

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(20))) == list(range(20))


@pytest.mark.processes
def test_a_bounded_function_travels_to_a_pool_by_name_and_as_a_wrapper() -> None:
    assert pickle.loads(pickle.dumps(doubled)) is doubled
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(doubled, range(4)) == [0, 2, 4, 6]
        assert pool.map(sm.bounded(abs, max_wait=20), [-1, 2]) == [1, 2]


def test_a_producer_that_waits_for_more_than_there_is_gets_an_error() -> None:
    sm.wait_for_memory(1)
    with pytest.raises(sm.MemoryWaitError):
        sm.wait_for_memory(1 << 50, max_wait=0)


@pytest.mark.parametrize("wrong", [{"size": -1}, {"max_wait": -1.0}, {"max_wait": float("nan")}])
def test_a_size_or_a_wait_below_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="allowed are"):
        sm.reserve(**wrong)  # type: ignore[arg-type]


JOB = """
import asyncio
import shm_monitor as sm
async def fetch(number):
    async with sm.reserve() if {reserves} else asyncio.Semaphore(400):
        body = bytearray(6 << 20)
        body[::4096] = bytes(len(body[::4096]))
        await asyncio.sleep(0.2)
        return len(body)
async def main():
    print(sum(await asyncio.gather(*(fetch(number) for number in range(100)))))
asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("reserves", [False, True])
def test_a_gather_of_downloads_finishes_in_a_cgroup_where_it_is_killed_without(*, reserves: bool) -> None:
    with new_group("memory") as group:
        group.limit_memory(256 * MB)
        job = textwrap.dedent(JOB.format(reserves=reserves))

        def enter() -> None:
            (group.path / "cgroup.procs").write_text(f"{os.getpid()}")

        command = [sys.executable, "-c", job]
        done = subprocess.run(command, preexec_fn=enter, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stdout) == ((0, f"{600 * MB}\n") if reserves else (-signal.SIGKILL, ""))
