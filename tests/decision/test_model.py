"""The compiled step agrees with the model of the rule, which was written apart, sample by sample."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from shm_monitor.decision.decider import Track
from shm_monitor.kernels import decide as step
from tests.support import rule_model

pytestmark = pytest.mark.thorough

Floats = NDArray[np.float64]


class Case(NamedTuple):
    """One limit and its readings: shares of the capacity at uneven times, some of them unknown."""

    limit: float
    target: float
    period: float
    horizon: float
    mono_ns: NDArray[np.uint64]
    values: Floats
    reclaims: Floats
    stall: Floats


def case(seed: int, count: int) -> Case:
    """Return pieces of plateau, ramp and noise with holes, at any rate, for any settings."""
    random = np.random.default_rng(seed)
    period, limit = float(random.choice([2.0, 10.0, 30.0])), float(random.uniform(0.6, 0.95))
    gaps = random.choice([0.02, 0.1, 0.5, 1.0, 3.0, 40.0], count, p=[0.2, 0.2, 0.3, 0.25, 0.045, 0.005])
    times = 86_400 + np.cumsum(gaps * period / 10 * random.uniform(0.7, 1.3, count))
    values = np.empty(count)
    start = 0
    while start < count:
        length, slope = int(random.integers(3, 80)), random.choice([0, 0, 0.02, 0.05, 0.1, -0.05])
        since = times[start : start + length] - times[start]
        noise = random.normal(0, random.choice([1e-4, 0.001, 0.005, 0.02]), len(since))  # a constant is all rounding
        values[start : start + length] = random.uniform(0.4, 1.0) + slope * random.uniform(0.3, 2) * since + noise
        start += length
    values = np.clip(values, 0.2, None)
    values = np.where(values > 1, 1 - 0.01 * (values % 1), values)
    values[random.random(count) < 0.07] = np.nan
    reclaims = np.cumsum(random.random(count) < 0.02).astype(np.float64)
    reclaims[random.random(count) < 0.02] = np.nan
    return Case(
        limit,
        limit * float(random.uniform(0.8, 1.0)),
        period,
        float(random.choice([1.0, 4.0, 8.0])),
        np.round(times * 1e9).astype(np.uint64),
        values,
        reclaims,
        random.choice([0.0, 0.05, 0.3], count),
    )


def decided(one: Case) -> NDArray[np.uint64]:
    """Return the verdict words of the compiled step."""
    count = len(one.values)
    columns = np.array([[0, 1, 2, -1, 3, 1]])
    bounds = np.array([[one.limit, np.nan, one.target / one.limit, np.nan]])
    readings = np.column_stack([one.values, np.ones(count), one.reclaims, one.stall * 100])
    words, verdicts = np.zeros((count, 1), np.uint64), np.zeros(count, np.uint64)
    step.RUN.compile()
    step.RUN.run(
        *(one.mono_ns, readings, 0, count),
        *(columns, bounds, np.array([one.period, one.horizon]), *Track.fresh(1)),
        *(words, verdicts, np.zeros((count, 1, step.BARS_WIDTH))),
    )
    return words[:, 0]


def disagreements(seeds: range, count: int) -> tuple[list[tuple[int, int]], NDArray[np.int64]]:
    """Return (seed, sample) where step and model differ, and how many samples had each reason."""
    found, seen = [], np.zeros(4, np.int64)
    for seed in seeds:
        one = case(seed, count)
        times: Floats = np.multiply(one.mono_ns, 1e-9)
        settings = (one.limit, one.target / one.limit * one.limit, one.period, one.horizon)
        levels, reasons = rule_model.run(times, one.values, *settings, one.reclaims, one.stall)
        words = decided(one).astype(np.int64)
        level, reason = words >> 32 & 3, words >> 34 & 0xFFFF
        unknown = np.isnan(one.values)
        # Of an unknown value the model knows no end and no degree: what was latched presses.
        differs = np.where(unknown, (level >= 2) != (levels >= 2), level != levels) | (reason != reasons)
        differs &= ~(unknown & (reason & 16 != 0))
        found += [(seed, int(sample)) for sample in np.flatnonzero(differs)]
        seen += [int((reason >> bit & 1).sum()) for bit in range(4)]
    return found, seen


def test_the_step_agrees_with_the_model_on_a_hundred_thousand_samples() -> None:
    found, seen = disagreements(range(20), 5_000)

    assert found == []
    assert (seen > 5_000).all()


@pytest.mark.slow
def test_the_step_agrees_with_the_model_on_a_million_samples() -> None:
    found, seen = disagreements(range(1000, 1200), 5_000)

    assert found == []
    assert (seen > 50_000).all()
