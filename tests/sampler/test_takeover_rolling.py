"""Rolling statistics over the ring go on over a takeover, and garbage in the ring only makes their window shorter."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import numpy as np

from shm_monitor.kernels import Rolling
from tests.support.publishing import Bench

if TYPE_CHECKING:
    from collections.abc import Callable


def test_rolling_means_go_on_over_a_takeover(make_bench: Callable[..., Bench], name: str) -> None:
    """The window is that of the ring, so the first mean of the successor is over the samples of both."""
    numbers = random.Random(5)
    values = [numbers.uniform(0, 100) for _ in range(40)]
    bench = make_bench(name, slot_count=64)
    rolling = rolling_over(bench)
    for at, value in enumerate(values[:25]):
        publish_rolled(bench, rolling, second=at, value=value)
    bench.publisher._segment._identity = None  # it dies: no clean stop, the name stays
    successor = make_bench(name, slot_count=64)
    assert successor.publisher.taken_over
    following = rolling_over(successor)
    following.rebuild(successor.publisher.head)
    for at, value in enumerate(values[25:], start=25):
        mean, maximum = publish_rolled(successor, following, second=at, value=value)
        window = values[max(at - 10, 0) : at + 1]
        assert math.isclose(mean, math.fsum(window) / len(window), rel_tol=1e-9)
        assert maximum == max(window)


def rolling_over(bench: Bench) -> Rolling:
    """Return rolling statistics over the ring of *bench*, with a period of 10 s."""
    return Rolling(bench.publisher.ring, rolled=1, period_seconds=10.0)


def publish_rolled(bench: Bench, rolling: Rolling, *, second: int, value: float) -> tuple[float, float]:
    """Publish *value* as of *second*; return its rolling mean and maximum."""
    record = bench.publisher.record
    record["values"][0] = value
    record["mono_ns"] = second * 10**9
    record["number"] = bench.publisher.head + 1
    rolling.advance(record)
    bench.publish(mono_ns=second * 10**9, value=value)
    return float(record["means"][0, 0]), float(record["maxima"][0, 0])


def test_garbage_in_the_ring_only_makes_the_window_shorter(make_bench: Callable[..., Bench], name: str) -> None:
    bench = make_bench(name, slot_count=64)
    for second in range(20):
        bench.publish(mono_ns=second * 10**9, value=1.0)
    raw = bench.publisher.ring.view(np.uint8).reshape(64, -1)
    moments = np.random.default_rng(3)
    for _ in range(200):
        kept = raw.copy()
        hit = [slot for slot in moments.integers(0, 64, 6) if slot != 20]
        raw[hit] = moments.integers(0, 256, (len(hit), raw.shape[1]), np.uint8)
        rolling = rolling_over(bench)
        rolling.rebuild(20)
        record = bench.publisher.record
        record["values"][0], record["mono_ns"], record["number"] = 1.0, 20 * 10**9, 21
        rolling.advance(record)
        assert record["maxima"][0, 0] >= 1.0
        raw[:] = kept
