"""How many tasks run at once follows the memory that they take, promised and measured."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

import shm_monitor as sm
from shm_monitor.acting.admission import Admission
from tests.support.fake_sampler import FakeSampler

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_SECONDS = 30.0


class Pool:
    """Tasks of 10 bytes each in a capacity of 100 with a limit of 90; 20 bytes are in use by others."""

    def __init__(self, name: str, limit: int | sm.Governor = 16) -> None:
        self.sampler = FakeSampler(name, observation_period=4.0, target_utilization=0.9)
        self.sampler.feed(*[20.0] * 6)
        self.reader = sm.attach(name)
        self.seconds = 1000.0
        self.others = 20.0
        self.admission = Admission(self.reader, limit, clock=lambda: self.seconds)

    def sample(self, count: int = 1, *, task_bytes: float = 10.0, shown: int | None = None) -> None:
        """Take samples in which *shown* of the running tasks have their memory."""
        for _ in range(count):
            running = self.admission.running if shown is None else shown
            self.sampler.feed(self.others + running * task_bytes)
            self.seconds += 1.0
            with self.admission._lock:
                self.admission._has_room()

    def fill(self) -> int:
        """Let in as many as there is room for; return how many run."""
        while self.admission.enter(0.0):
            pass
        return self.admission.running

    def know(self) -> None:
        """Run one task through its whole life."""
        assert self.admission.enter(0.0)
        self.sample(3)
        self.admission.leave()
        self.sample(3)


@pytest.fixture
def pool(name: str) -> Iterator[Pool]:
    made = Pool(name)
    yield made
    made.reader.close()
    made.sampler.close()


def test_the_first_task_runs_alone_until_it_has_shown_what_it_takes(pool: Pool) -> None:
    assert pool.fill() == 1
    pool.sample(3)
    assert pool.fill() == 1
    pool.admission.leave()
    assert pool.admission.task_bytes == pytest.approx(10)


def test_as_many_run_as_fit_below_the_limit(pool: Pool) -> None:
    """Of 90 - 20, seven tasks of 10."""
    pool.know()
    assert pool.fill() == 7


def test_what_was_promised_and_is_not_yet_taken_counts(pool: Pool) -> None:
    pool.know()
    pool.fill()
    pool.sample(2, shown=0)
    assert pool.fill() == 7
    pool.sample(2, shown=3)
    assert pool.fill() == 7


def test_short_tasks_start_slowly(pool: Pool) -> None:
    """None lives long enough to be seen: one more for each that ended."""
    found = []
    for _ in range(4):
        found.append(pool.fill())
        while pool.admission.running:
            pool.admission.leave()
        pool.seconds += 1.0
    assert found == [1, 2, 4, 8]


def test_long_tasks_that_have_stopped_growing_are_twice_as_many_at_twice_their_age(pool: Pool) -> None:
    """Looked at after 4, 8, 16 and 32 samples; nothing is known of half their age at the first look."""
    pool.fill()
    found = {}
    for age in range(1, 33):
        pool.sample()
        found[age] = pool.fill()
    ages = (7, 8, 15, 16, 31, 32)
    assert [found[age] for age in ages] == [1, 2, 2, 4, 4, 7], "of 90 - 20 not more than seven fit"


def test_long_tasks_that_grow_all_the_time_wait_for_the_end_of_the_first(pool: Pool) -> None:
    pool.fill()
    for age in range(1, 40):
        pool.sample(task_bytes=0.5 * age)
        assert pool.fill() == 1
    pool.admission.leave()
    pool.sample(3)
    assert pool.fill() == 3, "of 19.5 each below 90 - 20"


def test_others_that_grow_leave_less_room(pool: Pool) -> None:
    pool.know()
    pool.others = 40.0
    pool.sample()
    assert pool.fill() == 5


def test_while_pressed_only_what_fits_below_the_target_is_let_in(pool: Pool) -> None:
    pool.know()
    pool.others = 91.0
    while not pool.reader.should_prune():
        pool.sample()
    assert pool.fill() == 1, "something always runs"
    pool.admission.leave()
    pool.others = 50.0
    pool.sample()
    assert pool.reader.should_prune(), "held for a whole period"
    assert pool.fill() == 3, "81 - 50 hold three tasks of 10"


def test_a_limit_that_is_no_memory_leaves_the_smallest_number_while_pressed(name: str) -> None:
    sampler = FakeSampler(name, observation_period=2.0, max_cpu_usage_percent=50.0)
    sampler.feed(50.0)
    with sm.attach(name, watch=["cpu"]) as reader:
        admission = Admission(reader, 16, min_running=2)
        while admission.enter(0.0):
            pass
        calm = admission.running
        for _ in range(admission.running):
            admission.leave()
        sampler.readings["cpu.cpu_percent"] = 99.0
        while not reader.should_prune():
            sampler.feed(50.0)
        while admission.enter(0.0):
            pass
        assert (calm, admission.running) == (16, 2)
    sampler.close()


def test_a_governor_may_be_the_limit(name: str) -> None:
    """It starts at a 32nd of 64 and doubles with each look."""
    pool = Pool(name)
    governor = sm.Governor(64, reader=pool.reader, clock=lambda: pool.seconds)
    pool.admission = Admission(pool.reader, governor, clock=lambda: pool.seconds)
    pool.know()
    pool.sample(1)
    assert governor.size <= 64
    assert pool.fill() == 7, "the memory binds"
    pool.reader.close()
    pool.sampler.close()


def test_without_a_sampler_only_the_limit_counts(name: str) -> None:
    with sm.attach(name, timeout=0.0, required=False) as reader:
        admission = Admission(reader, 3)
        while admission.enter(0.0):
            pass
        assert admission.running == 3


def test_who_waits_is_let_in_when_one_ends(pool: Pool) -> None:
    admission = Admission(pool.reader, 1)
    assert admission.enter(0.0)
    entered = threading.Thread(target=admission.enter, args=(WAIT_SECONDS,), daemon=True)
    entered.start()
    admission.leave()
    entered.join(WAIT_SECONDS)
    assert not entered.is_alive()
    assert admission.running == 1


def test_who_waits_is_told_of_the_end(pool: Pool) -> None:
    admission = Admission(pool.reader, 1)
    assert admission.enter(0.0)
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            admission.enter(None)
        except RuntimeError as error:
            raised.append(error)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    while not admission._waiting:
        time.sleep(0.001)
    admission.close()
    waiting.join(WAIT_SECONDS)
    assert "after shutdown" in str(raised[0])
    with pytest.raises(RuntimeError, match="after shutdown"):
        admission.enter(0.0)
