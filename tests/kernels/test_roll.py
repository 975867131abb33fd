"""Rolling mean, maximum and slope against numpy and pandas."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shm_monitor.kernels import Rolling
from shm_monitor.kernels import roll as step
from shm_monitor.schema import Unknown, unknown
from tests.support.engine import sample_dtype

Floats = NDArray[np.float64]


class Feed:
    """A Rolling over a private ring of *slots*, fed one sample at a time; keeps what it wrote."""

    def __init__(self, *, rolled: int, period_seconds: float, slots: int) -> None:
        step.ROLL.compile()
        dtype = sample_dtype(rolled + 1, rolled, 0)
        self.ring, self.record = np.zeros(slots, dtype), np.zeros(1, dtype)
        self.rolled, self.period_seconds = rolled, period_seconds
        self.rolling = Rolling(self.ring, rolled=rolled, period_seconds=period_seconds)
        self.number = 0
        self.results: list[Floats] = []

    def sample(self, mono_ns: int, values: Floats) -> None:
        self.number += 1
        record = self.record
        record["number"] = record["number_end"] = self.number
        record["mono_ns"] = mono_ns
        record["values"][0, : self.rolled] = values
        self.rolling.advance(record)
        self.results.append(np.stack([record[name][0] for name in ("means", "maxima", "slopes")]))
        self.ring[self.number % len(self.ring)] = record[0]


def expected(times_ns: NDArray[np.int64], values: Floats, period_seconds: float) -> Floats:
    """Return mean, maximum and slope over the window that ends with the last sample, by numpy; shape (3,)."""
    window = (times_ns[-1] - times_ns <= round(period_seconds * 1e9)) & ~np.isnan(values)
    if not window.any():
        return np.full(3, np.nan)
    seconds, known = (times_ns[window] - times_ns[-1]) * 1e-9, values[window]
    spread = seconds - seconds.mean()
    squares = float((spread**2).sum())
    slope = float((spread * (known - known.mean())).sum()) / squares if squares > 0 else math.nan
    return np.array([known.mean(), known.max(), slope])


def irregular(count: int, *, seed: int) -> tuple[NDArray[np.int64], Floats]:
    """Return times (ns, a tenth of a second apart on average) and two columns of values with NaNs and wide swings."""
    random = np.random.default_rng(seed)
    times = 10**15 + np.cumsum(random.exponential(1e8, count).astype(np.int64) + 1)
    values = np.stack([random.normal(1e9, 1e7, count), np.cumsum(random.normal(0, 1, count))], axis=1)
    values[random.random((count, 2)) < 0.1] = np.nan
    return times, values


@pytest.mark.slow
def test_a_million_irregular_samples_with_nans_agree_with_pandas_to_1e_9() -> None:
    """No drift: means and maxima of the whole run by pandas, slopes of every thousandth sample by numpy."""
    count, period = 1_000_000, 10.0
    times, values = irregular(count, seed=1)
    padded = np.concatenate([np.zeros((1, 2)), values])
    mono = np.concatenate([[0], times]).astype(np.uint64)
    means, slopes, maxima = np.zeros((count + 1, 2)), np.zeros((count, 2)), np.zeros((count, 2))
    _roll_all(mono, padded, means, maxima, slopes, period)

    frame = pd.DataFrame(values, index=pd.to_datetime(times))
    window = frame.rolling("10s", closed="both", min_periods=1)
    np.testing.assert_allclose(maxima, window.max().to_numpy(), rtol=1e-9)
    np.testing.assert_allclose(means[1:, 0], window.mean().to_numpy()[:, 0], rtol=1e-9)
    for place in range(0, count, 1000):
        low = max(place - 400, 0)
        for column in range(2):
            wanted = expected(times[low : place + 1], values[low : place + 1, column], period)
            scale = np.nanmax(np.abs(values[low : place + 1, column]))
            np.testing.assert_allclose(means[place + 1, column], wanted[0], rtol=1e-9)
            np.testing.assert_allclose(slopes[place, column], wanted[2], rtol=1e-9, atol=1e-12 * scale)


def _roll_all(
    mono: NDArray[np.uint64], values: Floats, means: Floats, maxima: Floats, slopes: Floats, period: float
) -> None:
    """Take each row but the first through the kernel that Rolling uses."""
    step.ROLL.compile()
    numbers = np.arange(len(mono), dtype=np.uint64)
    calm = np.zeros(len(mono), np.uint64)
    cursor = np.full(step.CURSOR_WIDTH, -1)
    stack = np.zeros((1002, 2, step.AGGREGATE_WIDTH))
    stack[-1, :, step.MAXIMUM] = -np.inf
    for row in range(1, len(mono)):
        step.ROLL.run(
            mono, calm, values, numbers[row : row + 1], mono[row : row + 1], calm[:1], values[row],
            means[row], maxima[row - 1], slopes[row - 1], cursor, stack, np.ones(2, np.int64), round(period * 1e9),
        )  # fmt: skip


def test_the_window_holds_what_is_a_period_old_and_nothing_older() -> None:
    feed = Feed(rolled=1, period_seconds=10, slots=32)
    for second in range(21):
        feed.sample(second * 10**9, np.array([float(second)]))

    assert feed.results[-1][:, 0] == pytest.approx([15.0, 20.0, 1.0])  # seconds 10 to 20: eleven samples


def test_one_reading_has_a_mean_and_a_maximum_and_no_slope() -> None:
    feed = Feed(rolled=1, period_seconds=10, slots=8)
    feed.sample(10**9, np.array([5.0]))

    assert feed.results[-1][:2, 0].tolist() == [5.0, 5.0]
    assert math.isnan(feed.results[-1][2, 0])


def test_a_window_of_missing_readings_is_unknown_and_a_later_reading_starts_afresh() -> None:
    feed = Feed(rolled=1, period_seconds=2, slots=8)
    readings = [7.0, *[unknown(Unknown.TIMEOUT)] * 3, 3.0]
    for second, reading in enumerate(readings):
        feed.sample(second * 10**9, np.array([reading]))

    assert [result[0, 0] for result in feed.results[:3]] == [7.0, 7.0, 7.0]
    assert np.isnan(feed.results[3]).all()
    assert feed.results[4][:2, 0].tolist() == [3.0, 3.0]


steps = st.lists(
    st.tuples(
        st.integers(0, 3_000_000_000),  # ns since the sample before; two samples may share a time
        st.one_of(st.just(math.nan), st.floats(-1e6, 1e6)),
    ),
    min_size=1,
    max_size=120,
)


@settings(max_examples=150)
@given(steps=steps, period_seconds=st.sampled_from([0.5, 3.0, 20.0]))
def test_a_ring_that_wraps_gives_what_numpy_gives(steps: list[tuple[int, float]], period_seconds: float) -> None:
    feed = Feed(rolled=1, period_seconds=period_seconds, slots=128)
    times = 10**12 + np.cumsum([gap for gap, _ in steps])
    values = np.array([value for _, value in steps])
    for place, (time, value) in enumerate(zip(times, values, strict=True)):
        feed.sample(int(time), np.array([value]))
        wanted = expected(times[: place + 1], values[: place + 1], period_seconds)
        got = feed.results[-1][:, 0]
        assert got[:2] == pytest.approx(wanted[:2], rel=1e-9, abs=1e-6, nan_ok=True)
        inside = times[place] - times[: place + 1] <= round(period_seconds * 1e9)
        known = times[: place + 1][inside & ~np.isnan(values[: place + 1])]
        if np.isnan(wanted[2]) or np.ptp(known) > 10**6:  # a slope over less than a millisecond has few digits
            assert got[2] == pytest.approx(wanted[2], rel=1e-6, abs=1e-3, nan_ok=True)


@settings(max_examples=100)
@given(values=st.lists(st.one_of(st.just(math.nan), st.floats(-1e9, 1e9)), min_size=1, max_size=60))
def test_a_rolling_mean_stays_within_its_window(values: list[float]) -> None:
    feed = Feed(rolled=1, period_seconds=7, slots=16)
    for second, value in enumerate(values):
        feed.sample(second * 10**9, np.array([value]))
        seen = [one for one in values[max(second - 7, 0) : second + 1] if not math.isnan(one)]
        mean, maximum = feed.results[-1][:2, 0]
        assert (math.isnan(mean) and not seen) or min(seen) - 1e-6 <= mean <= max(seen) + 1e-6
        assert (math.isnan(maximum) and not seen) or maximum == max(seen)


def test_a_ring_shorter_than_the_period_rolls_over_what_it_holds() -> None:
    feed = Feed(rolled=1, period_seconds=1000, slots=8)
    for second in range(50):
        feed.sample(second * 10**9, np.array([float(second)]))

    assert feed.results[-1][:, 0] == pytest.approx([45.5, 49.0, 1.0])  # eight samples, 42 to 49


def test_a_takeover_goes_on_as_if_nothing_had_happened() -> None:
    times, values = irregular(400, seed=2)
    whole = Feed(rolled=2, period_seconds=5, slots=128)
    restarted = Feed(rolled=2, period_seconds=5, slots=128)
    for place, (time, row) in enumerate(zip(times, values, strict=True)):
        if place in {1, 77, 200, 201, 333}:
            restarted.rolling = Rolling(restarted.ring, rolled=2, period_seconds=5)
            restarted.rolling.rebuild(restarted.number)
        whole.sample(int(time), row)
        restarted.sample(int(time), row)

    np.testing.assert_allclose(restarted.results, whole.results, rtol=1e-9, atol=1e-6)


def test_a_takeover_after_more_than_a_period_starts_with_the_first_new_sample() -> None:
    feed = Feed(rolled=1, period_seconds=5, slots=32)
    for second in range(10):
        feed.sample(second * 10**9, np.array([1.0]))
    feed.rolling = Rolling(feed.ring, rolled=1, period_seconds=5)
    feed.rolling.rebuild(feed.number)

    feed.sample(60 * 10**9, np.array([9.0]))

    assert feed.results[-1][0, 0] == 9.0


@pytest.mark.parametrize("field", ["number", "number_end", "mono_ns"])
def test_damage_in_the_ring_ends_the_window_there(field: str) -> None:
    feed = Feed(rolled=1, period_seconds=10, slots=32)
    for second in range(20):
        feed.sample(second * 10**9, np.array([float(second)]))
    feed.ring[field][15] = 2**63 + 5  # sample 15, of second 14
    feed.rolling = Rolling(feed.ring, rolled=1, period_seconds=10)
    feed.rolling.rebuild(feed.number)

    feed.sample(20 * 10**9, np.array([20.0]))

    assert feed.results[-1][0, 0] == pytest.approx(np.mean([15, 16, 17, 18, 19, 20]))


@settings(max_examples=50)
@given(noise=st.binary(min_size=200, max_size=400), newest=st.integers(0, 2**40))
def test_a_ring_of_random_bytes_is_taken_over_without_an_error(noise: bytes, newest: int) -> None:
    feed = Feed(rolled=1, period_seconds=10, slots=8)
    raw = feed.ring.view(np.uint8)
    raw[:] = np.resize(np.frombuffer(noise, np.uint8), raw.shape)

    feed.rolling.rebuild(newest)
    feed.number = newest
    feed.sample(10**9, np.array([4.0]))

    assert feed.results[-1].shape == (3, 1)


def test_a_hole_in_the_numbers_is_never_rolled_over() -> None:
    feed = Feed(rolled=1, period_seconds=10, slots=32)
    for second in range(5):
        feed.sample(second * 10**9, np.array([1.0]))
    feed.number += 1

    feed.sample(6 * 10**9, np.array([3.0]))

    assert feed.results[-1][0, 0] == 3.0


def test_interpreted_and_compiled_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sampler rolls interpreted until the compiler is done: nobody may see a seam."""
    step.ROLL.compile()
    times, values = irregular(300, seed=3)
    runs = []
    for run in (step.ROLL.run, step.roll):
        monkeypatch.setattr(step.ROLL, "run", run)
        feed = Feed(rolled=2, period_seconds=5, slots=128)
        for time, row in zip(times, values, strict=True):
            feed.sample(int(time), row)
        runs.append(np.array(feed.results))

    assert runs[0].tobytes() == runs[1].tobytes()


def test_a_sample_allocates_nothing_that_stays() -> None:
    feed = Feed(rolled=2, period_seconds=5, slots=64)
    times, values = irregular(300, seed=4)
    for time, row in zip(times[:200], values[:200], strict=True):
        feed.sample(int(time), row)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for place in range(200, 300):
        feed.record["number"], feed.record["mono_ns"] = place + 1, times[place]
        feed.rolling.advance(feed.record)
        feed.ring[(place + 1) % 64] = feed.record[0]
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()

    assert grown < 4096
