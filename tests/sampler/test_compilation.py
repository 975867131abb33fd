"""A sampler compiles where that is worth it and fits, beside its samples; a small one never has numba in its memory."""

from __future__ import annotations

import gc
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from shm_monitor import attach
from shm_monitor.kernels import of_one_sample
from shm_monitor.kernels.compiled import Kernel
from shm_monitor.sampler.compilation import (
    HEADROOM_BYTES,
    compile_beside_sampling,
    own_headroom_bytes,
    reason_against,
)
from shm_monitor.schema import Level
from shm_monitor.segment.death import last_was_short_of_memory
from tests.support.mappings import maps_of
from tests.support.real_sampler import RealSampler, fast
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.publishing import Bench

GIBIBYTE = 2.0**30


def against(mode: str = "auto", **given: Any) -> str:
    """Return what speaks against compiling where nothing does but what is *given*."""
    usual = {"rate_hz": 10.0, "limits_count": 3, "killed_before": False, "headroom_bytes": 2 * GIBIBYTE}
    return reason_against(mode, **{**usual, **given})  # type: ignore[arg-type]


def test_auto_compiles_where_it_is_worth_it_and_fits() -> None:
    assert against() == ""
    assert against(rate_hz=5.0) == ""
    assert against(rate_hz=1.0, limits_count=24) == ""
    assert against(headroom_bytes=HEADROOM_BYTES) == ""

    assert "not worth it" in against(rate_hz=4.9, limits_count=23)
    assert "1023" in against(headroom_bytes=HEADROOM_BYTES - 2**20)
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


@pytest.mark.processes
def test_an_interpreted_sampler_has_neither_numba_nor_its_compiler_in_its_memory(name: str) -> None:
    with RealSampler(fast(name)) as sampler:
        report = sampler.report()
        assert not report.error
        assert "numpy" in maps_of(report.pid)
        assert "llvmlite" not in maps_of(report.pid)


@pytest.mark.alone
@pytest.mark.slow
def test_a_sampler_samples_on_while_it_compiles_on_a_cold_cache(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    with RealSampler(fast(name, compile="always")) as sampler:
        pid = sampler.report().pid
        with attach(name) as reader:
            wait_until(lambda: "llvmlite" in maps_of(pid))
            first = reader.snapshot().sequence
            wait_until(lambda: reader.snapshot().sequence > first + 10)
            assert len(list(tmp_path.rglob("*.nbi"))) < len(of_one_sample())
            wait_until(lambda: "kernels compiled in" in sampler.log(), seconds=300.0)
            last = reader.snapshot().sequence
            wait_until(lambda: reader.snapshot().sequence > last)
        assert len(list(tmp_path.rglob("*.nbi"))) == len(of_one_sample())
        sampler.process.terminate()
        assert sampler.end()[0] == 0


@pytest.mark.processes
def test_a_sampler_that_compiles_stops_at_once_and_cleanly(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    with RealSampler(fast(name, compile="always")) as sampler:
        pid = sampler.report().pid
        wait_until(lambda: "llvmlite" in maps_of(pid))

        sampler.process.terminate()

        status, logged = sampler.end()
        assert status == 0
        assert "kernels compiled" not in logged


def test_where_numba_cannot_be_loaded_the_kernels_stay_interpreted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where the numpy beside it is too new."""

    def refuse(kernel: Kernel) -> None:
        raise ImportError("Numba needs NumPy 2.4 or less")

    monkeypatch.setattr(Kernel, "compile", refuse)
    before = gc.isenabled(), sys.getswitchinterval()

    compile_beside_sampling()

    assert "kernels stay interpreted: ImportError: Numba needs NumPy 2.4 or less" in caplog.text
    assert (gc.isenabled(), sys.getswitchinterval()) == before
    gc.unfreeze()


@pytest.mark.parametrize(("level", "short"), [(Level.OK, False), (Level.WARN, True), (Level.CRITICAL, True)])
def test_a_dead_sampler_leaves_word_whether_memory_was_short(
    name: str, make_bench: Callable[..., Bench], level: Level, short: bool
) -> None:
    """The first limit of the small schema is memory."""
    bench = make_bench(name)
    bench.publish(level)
    assert not last_was_short_of_memory(name)

    bench.close()
    bench = make_bench(name, dead=True)
    bench.publish(level)

    assert last_was_short_of_memory(name) is short
    bench.close()
    assert not last_was_short_of_memory(name)


def test_another_limit_than_memory_is_no_word_of_memory(name: str, make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(name, dead=True)
    bench.publish(Level.OK, Level.CRITICAL)

    assert not last_was_short_of_memory(name)
