"""A batch in slices is the batch: every row once, weights that sum up to one, and what a row takes is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import shm_monitor as sm
from shm_monitor.acting.microbatch import even_part
from shm_monitor.acting.peak import Memory, PeakMeter, read_memory, reset_peak
from tests.support.children import run_python
from tests.support.fake_sampler import FakeSampler

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20


@pytest.fixture
def sampler(name: str) -> Iterator[FakeSampler]:
    made = FakeSampler(name)
    made.feed(50.0)
    yield made
    made.close()


@pytest.fixture
def micro(name: str, sampler: FakeSampler) -> sm.MicroBatch:
    return sm.MicroBatch(64, reader=sm.attach(name))


def sizes(micro: sm.MicroBatch, count: int) -> list[int]:
    """Return the lengths of the slices of a batch of *count* rows; each tells that it took a byte a row."""
    found = []
    for (rows,), _, _ in micro.split(range(count)):
        micro.observe(len(rows), len(rows))
        found.append(len(rows))
    return found


def test_every_row_comes_once_in_order_with_its_label(micro: sm.MicroBatch) -> None:
    x, y = np.arange(100.0), [str(number) for number in range(100)]
    parts = [(xs, ys) for (xs, ys), _, _ in micro.split(x, y)]

    assert len(parts) > 3
    assert np.concatenate([xs for xs, _ in parts]).tolist() == x.tolist()
    assert [label for _, ys in parts for label in ys] == y


def test_the_weights_sum_up_to_one_and_one_slice_is_the_last(micro: sm.MicroBatch) -> None:
    found = [(len(rows), weight, is_last) for (rows,), weight, is_last in micro.split(range(100))]

    assert sum(weight for _, weight, _ in found) == pytest.approx(1.0)
    assert all(weight == count / 100 for count, weight, _ in found)
    assert [is_last for _, _, is_last in found] == [False] * (len(found) - 1) + [True]


def test_the_gradient_of_the_slices_is_that_of_the_batch(micro: sm.MicroBatch) -> None:
    random = np.random.default_rng(7)
    x, y, weights = random.normal(size=(500, 3)), random.normal(size=500), np.array([0.5, -1.0, 2.0])

    def gradient(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.asarray(2 * x.T @ (x @ weights - y) / len(y))

    summed = sum(gradient(xs, ys) * weight for (xs, ys), weight, _ in micro.split(x, y))
    np.testing.assert_allclose(summed, gradient(x, y), rtol=1e-12)


def test_the_size_is_asked_for_again_before_each_slice(micro: sm.MicroBatch, sampler: FakeSampler) -> None:
    """2 of 64 to begin with, doubled to 0.6 of the 50 bytes left; then 10 are left, so 6 rows in the midst of it."""
    assert sizes(micro, 62) == [4, 8, 13, 19, 18], "up to 4, 8, 16, 30, 30, in as few parts as those, all alike"
    found = []
    for (rows,), _, _ in micro.split(range(60)):
        found.append(len(rows))
        micro.observe(len(rows), len(rows))
        sampler.feed(90.0)
        micro._next_outlook = micro._next_look = 0.0
        micro._work_seconds = 0.0  # a slope is another test's
    assert found[0] == 30
    assert found[1:-1] == [6] * len(found[1:-1])
    assert sum(found) == 60


@pytest.mark.parametrize(("count", "most", "part"), [(256, 77, 64), (256, 64, 64), (13, 6, 5), (6, 6, 6), (1, 100, 1)])
def test_the_last_slice_is_no_remainder(count: int, most: int, part: int) -> None:
    """A small one would cost as much as the others of what is fixed."""
    assert even_part(count, most) == part


def test_an_empty_batch_has_no_slices(micro: sm.MicroBatch) -> None:
    assert list(micro.split([])) == []


def test_tensors_of_different_lengths_are_refused_before_the_first_slice(micro: sm.MicroBatch) -> None:
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        micro.split([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="one or more"):
        micro.split()


class Layer:
    """A module of a framework, as far as it is looked at."""

    def __init__(self, *, training: bool = True, **children: Layer) -> None:
        self.training = training
        self._children = children

    def named_modules(self) -> Iterator[tuple[str, Layer]]:
        yield "", self
        yield from self._children.items()


class _BatchNorm(Layer):
    pass


class BatchNorm1d(_BatchNorm):
    pass


class OursOverIt(BatchNorm1d):
    pass


def test_a_model_that_normalises_over_the_batch_is_refused_with_its_layer(micro: sm.MicroBatch) -> None:
    with pytest.raises(sm.UnsafeSplitError, match="'norm' \\(OursOverIt\\)") as caught:
        micro.split([1], model=Layer(linear=Layer(), norm=OursOverIt()))
    assert (caught.value.layer, caught.value.kind) == ("norm", "OursOverIt")
    assert "GroupNorm" in str(caught.value)


def test_a_model_that_only_evaluates_or_normalises_rows_is_split(micro: sm.MicroBatch) -> None:
    assert len(list(micro.split([1], model=Layer(norm=BatchNorm1d(training=False), linear=Layer())))) == 1


MEASURED = """
import numpy as np, sys
import shm_monitor as sm
micro = sm.MicroBatch(8, reader=sm.attach(sys.argv[1], required=False, timeout=0.0))
for _ in range(3):
    for (rows,), _, _ in micro.split(range(40)):
        np.ones((len(rows), 1 << 20), np.uint8)
print(micro.footprint.bytes_per_unit)
"""


@pytest.mark.processes
def test_what_a_row_takes_is_measured(name: str) -> None:
    """A MB a row, given back after each slice, in a process whose allocator has learned nothing from other tests."""
    if not reset_peak():
        pytest.skip("the system does not let a process reset its peak")

    assert float(run_python(MEASURED, name).stdout) == pytest.approx(MIB, rel=0.25)


def test_what_the_caller_observes_stands(micro: sm.MicroBatch) -> None:
    for (rows,), _, _ in micro.split(range(64)):
        np.ones((len(rows), MIB), np.uint8)
        micro.observe(len(rows), 10 * len(rows))

    micro._begin()
    assert micro.footprint.bytes_per_unit == pytest.approx(10)


def test_the_memory_of_this_process_is_read() -> None:
    memory = read_memory()

    assert memory is not None
    assert MIB < memory.now <= memory.peak


class Process:
    """Resident memory as an allocator makes it that keeps its pages, or gives them back."""

    def __init__(self, *, keeps: bool, leak: int = 0) -> None:
        self.keeps, self.leak = keeps, leak
        self.now, self.peak, self.free = 1000, 1000, 0
        self.meter = PeakMeter(lambda: Memory(self.now, self.peak), self.reset)

    def reset(self) -> bool:
        self.peak = self.now
        return True

    def work(self, units: int, per_unit: int = 10, fixed: int = 0) -> tuple[int, int] | None:
        """Do a piece of work; return what the one before it taught."""
        taught = self.meter.begin()
        taken = units * per_unit + fixed
        fresh = max(taken - self.free, 0)
        self.now += fresh + self.leak
        self.peak = max(self.peak, self.now)
        self.meter.end(units)
        if self.keeps:
            self.free = max(self.free, taken)
        else:
            self.now -= fresh
        return taught


def test_pages_given_back_make_each_peak_what_the_work_took() -> None:
    process = Process(keeps=False)

    assert [process.work(units) for units in (1, 2, 4, 4, 4, 2, 2)] == [
        None, (1, 10), (2, 20), (4, 40), (4, 40), (4, 40), (2, 20),
    ]  # fmt: skip


def test_pages_that_are_kept_count_as_taken_and_teach_nothing_twice() -> None:
    process = Process(keeps=True)

    assert [process.work(units) for units in (1, 2, 4, 4, 4, 8, 2, 2)] == [
        None, (1, 10), (2, 20), (4, 40), None, None, (8, 80), None,
    ]  # fmt: skip


def test_a_slow_leak_is_not_taken_for_what_the_work_takes() -> None:
    for keeps in (False, True):
        process = Process(keeps=keeps, leak=1)
        taught = [process.work(20) for _ in range(200)]

        assert max(bytes_ for units, bytes_ in filter(None, taught)) <= 201


def test_a_system_that_says_nothing_teaches_nothing() -> None:
    meter = PeakMeter(lambda: None, lambda: False)

    assert (meter.begin(), meter.end(4), meter.begin()) == (None, 0, None)
