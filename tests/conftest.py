"""What every test may use: a name of its own, cleaned up whatever happens, and samplers of every kind."""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
if sys.flags.isolated:
    sys.path.append(str(ROOT))  # python -I -m pytest: last, so that the installed wheel is tested, not the checkout
else:
    sys.path.insert(0, str(ROOT / "api"))  # python -m pytest has put the checkout itself first

from shm_monitor.sampler.publisher import Publisher
from shm_monitor.schema import Level, Limit, Metric, Schema
from shm_monitor.segment import names
from shm_monitor.segment.lock import Lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.light_sampler import LightSamplers


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """A developer's own environment must not decide a test."""
    for key in list(os.environ):
        if key.startswith("SHM_MONITOR_"):
            monkeypatch.delenv(key)


@pytest.fixture
def name() -> Iterator[str]:
    """A sampler name that nobody else uses; its files are removed afterwards."""
    unique = f"test-{uuid.uuid4().hex[:12]}"
    _names_used.append(unique)
    yield unique
    remove_files(unique)


_names_used: list[str] = []


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_in_shared_memory() -> Iterator[None]:
    """When all tests have run, no file bears a name that one of them had."""
    yield
    if names.HAS_DIRECTORY:
        left = [entry for entry in os.listdir(names.SHM_DIRECTORY) if any(name in entry for name in _names_used)]
        assert left == []


def remove_files(name: str) -> None:
    """Remove every file of the sampler *name*."""
    for path in (names.object_path(name), *(names.side_path(name, suffix) for suffix in ("~lock", "~new", "~inject"))):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def small_schema(metric_count: int = 3, limit_count: int = 2) -> Schema:
    """Return a schema of *metric_count* metrics, the first rolled, and *limit_count* limits on it."""
    metrics = tuple(
        Metric("memory" if index else "cpu", f"m{index}_bytes", "bytes", "a number", "a test", rolled=index == 0)
        for index in range(metric_count)
    )
    known = ("memory", "cpu", "network", "gpu:0", "gpu-memory:0")
    limits = tuple(
        Limit(limit, metrics[0].name, "bytes", "GPU-0" if limit.startswith("gpu") else "")
        for limit in known[:limit_count]
    )
    return Schema(metrics, limits, ("cpu", "memory"), {}, ("level", "value"))


class Bench:
    """A publisher in this process, with the lock of its name: publishes what a test tells it to."""

    def __init__(
        self, name: str, schema: Schema | None = None, *, slot_count: int = 8, by_kernel: bool = False
    ) -> None:
        self.name = name
        self.schema = small_schema() if schema is None else schema
        self.lock = Lock(name)
        self.publisher = Publisher(
            name,
            self.schema,
            slot_count=slot_count,
            interval_ns=10**9,
            stale_after_ns=3 * 10**9,
            kernel_marks_death=by_kernel,
        )

    def publish(self, *levels: Level, mono_ns: int | None = None, value: float = 1.0) -> None:
        """Publish a sample whose limits have *levels*; the overall one is the highest."""
        import time

        given = [*levels, *[Level.OK] * (len(self.schema.limits) - len(levels))]
        verdicts = np.array([int(level) << 32 for level in given], np.uint64)
        record = self.publisher.record
        record["values"][0] = value
        record["verdict"] = max(given, default=Level.OK) << 32
        self.publisher.publish(
            mono_ns=time.monotonic_ns() if mono_ns is None else mono_ns, realtime_ns=time.time_ns(), verdicts=verdicts
        )

    def close(self) -> None:
        self.publisher.close()
        self.lock.release()


@pytest.fixture
def bench(name: str) -> Iterator[Bench]:
    """A publisher under this test's name, with one calm sample, whose death only a clock can tell."""
    made = Bench(name)
    made.publish()
    yield made
    made.close()


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    """Make publishers; those still open are closed afterwards."""
    made: list[Bench] = []

    def make(name: str, schema: Schema | None = None, *, slot_count: int = 8, by_kernel: bool = False) -> Bench:
        made.append(Bench(name, schema, slot_count=slot_count, by_kernel=by_kernel))
        return made[-1]

    yield make
    for one in made:
        with contextlib.suppress(Exception):
            one.close()


def child_environment(**settings: str) -> dict[str, str]:
    """Return an environment in which a child finds the same modules as this process, and these *settings*."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("SHM_MONITOR_")}
    return {**inherited, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **settings}


@pytest.fixture(scope="session")
def light() -> Iterator[LightSamplers]:
    """Samplers that start in 10 ms, one zygote for all tests; see :mod:`tests.support.light_sampler`."""
    from tests.support.light_sampler import LightSamplers

    with LightSamplers() as made:
        yield made
