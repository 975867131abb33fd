"""A sampler compiles where that is worth it and fits, in a child; a small one never has numba in its memory."""

from __future__ import annotations

import math
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from shm_monitor.sampler.compilation import HEADROOM_BYTES, own_headroom_bytes, reason_against
from shm_monitor.schema import Level
from shm_monitor.segment.death import last_was_short_of_memory
from tests.support.mappings import maps_of, private_code
from tests.support.real_sampler import RealSampler, fast
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.publishing import Bench

GIBIBYTE = 2.0**30


def against(mode: str = "auto", **given: Any) -> str:
    """Return what speaks against compiling where nothing does but what is *given*."""
    usual = {"rate_hz": 10.0, "limits_count": 3, "killed_before": False, "headroom_bytes": GIBIBYTE}
    return reason_against(mode, **{**usual, **given})  # type: ignore[arg-type]


def test_auto_compiles_where_it_is_worth_it_and_fits() -> None:
    assert against() == ""
    assert against(rate_hz=5.0) == ""
    assert against(rate_hz=1.0, limits_count=24) == ""
    assert against(headroom_bytes=HEADROOM_BYTES) == ""

    assert "not worth it" in against(rate_hz=4.9, limits_count=23)
    assert "511" in against(headroom_bytes=HEADROOM_BYTES - 2**20)
    assert against(headroom_bytes=math.nan) != ""
    assert "killed" in against(killed_before=True)


def test_always_and_never_mean_what_they_say() -> None:
    assert against("always", rate_hz=0.1, killed_before=True, headroom_bytes=0.0) == ""
    assert against("never") == "COMPILE=never"


def test_without_numba_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shm_monitor.sampler.compilation.has_compiler", lambda: False)
    assert "numba is not installed" in against("always")
    assert "numba is not installed" in against("auto")


def test_the_headroom_of_this_process_is_at_most_that_of_the_machine() -> None:
    assert 0 < own_headroom_bytes() <= psutil.virtual_memory().available + GIBIBYTE


def test_an_interpreted_sampler_has_neither_numba_nor_its_compiler_in_its_memory(name: str) -> None:
    with RealSampler(fast(name)) as sampler:
        report = sampler.report()
        assert not report.error
        assert "numpy" in maps_of(report.pid)
        assert "llvmlite" not in maps_of(report.pid)


@pytest.mark.slow
@pytest.mark.timeout(700)  # the child has the lowest priority
def test_a_child_compiles_and_the_sampler_takes_the_code_and_no_compiler(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cold cache: the sampler has its first sample long before that."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    with RealSampler(fast(name, compile="always")) as sampler:
        report = sampler.report()
        before = maps_of(report.pid)
        wait_until(lambda: psutil.Process(report.pid).children() != [])
        wait_until(lambda: psutil.Process(report.pid).children() == [], seconds=300.0)
        assert list(tmp_path.rglob("*.nbi"))
        assert "llvmlite" not in before
        assert sampler.process.poll() is None
        if platform.machine() == "x86_64":
            assert "llvmlite" not in maps_of(report.pid)
            wait_until(lambda: private_code(maps_of(report.pid)) > private_code(before))
        sampler.process.terminate()
        assert sampler.end()[0] == 0


def test_the_compiler_ends_with_its_sampler(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    with RealSampler(fast(name, compile="always")) as sampler:
        report = sampler.report()
        children: list[psutil.Process] = []

        def compiles() -> bool:
            """Say so once the child is another program: until its exec it is a fork of the sampler."""
            children[:] = psutil.Process(report.pid).children()
            return bool(children) and "shm_monitor.kernels.compile_ahead" in children[0].cmdline()

        wait_until(compiles)
        sampler.process.terminate()
        assert sampler.end()[0] == 0
        wait_until(lambda: not os.path.exists(f"/proc/{children[0].pid}"))


@pytest.mark.parametrize(("level", "short"), [(Level.OK, False), (Level.WARN, True), (Level.CRITICAL, True)])
def test_a_dead_sampler_leaves_word_whether_memory_was_short(
    name: str, make_bench: Callable[..., Bench], level: Level, short: bool
) -> None:
    """The first limit of the small schema is memory."""
    bench = make_bench(name)
    bench.publish(level)
    assert not last_was_short_of_memory(name)

    bench.publish(level, mono_ns=time.monotonic_ns() - 60 * 10**9)

    assert last_was_short_of_memory(name) is short
    bench.close()
    assert not last_was_short_of_memory(name)


def test_another_limit_than_memory_is_no_word_of_memory(name: str, make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(name)
    bench.publish(Level.OK, Level.CRITICAL, mono_ns=time.monotonic_ns() - 60 * 10**9)

    assert not last_was_short_of_memory(name)
