"""The kernel killed the sampler because memory ran out: no worker is told that all is calm now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shm_monitor.schema import Level
from shm_monitor.segment.view import View
from shm_monitor.worker.attaching import attach
from shm_monitor.worker.grace_period import GracePeriod
from shm_monitor.worker.injecting import inject
from tests.support.light_sampler import end
from tests.support.real_sampler import RealSampler, fast
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.publishing import Bench


@pytest.mark.processes
def test_a_killed_sampler_under_pressure_is_answered_for_one_period_and_then_calmly(name: str) -> None:
    with RealSampler(fast(name, allow_injection=True)) as sampler:
        report = sampler.report()
        with attach(name) as reader:
            inject(reader, {"memory_percent": 99.0}, 60.0)
            wait_until(reader.should_prune)
            end(report.pid)
            assert reader.should_prune()
            assert reader.level() >= Level.PRUNE
            assert reader.status().state == "stale"
            wait_until(lambda: not reader.should_prune())
            assert reader.level() == Level.OK
            with attach(name) as late:
                assert late.should_prune()  # by its own clock: it has only just seen the death


@pytest.mark.parametrize("level", [Level.WARN, Level.PRUNE])
def test_the_grace_period_lasts_one_observation_period_from_the_first_look(
    name: str, make_bench: Callable[..., Bench], level: Level
) -> None:
    make_bench(name, period_seconds=5.0, dead=True).publish(level)
    now = [100.0]
    grace_period, view = GracePeriod(lambda: now[0]), View(name)

    assert grace_period.lasts(view)
    now[0] += 4.99
    assert grace_period.lasts(view)
    now[0] += 0.01
    assert not grace_period.lasts(view)


def test_a_warning_holds_no_worker_back(name: str, make_bench: Callable[..., Bench]) -> None:
    """The last verdict goes on, whatever it was."""
    make_bench(name, period_seconds=5.0, dead=True).publish(Level.WARN)
    with attach(name) as reader:
        assert reader.level() == Level.WARN
        assert not reader.should_prune()


def test_a_death_in_calm_times_and_one_over_another_limit_have_none(
    name: str, make_bench: Callable[..., Bench]
) -> None:
    bench = make_bench(name, period_seconds=5.0, dead=True)
    for levels in ((Level.OK, Level.OK), (Level.OK, Level.CRITICAL)):
        bench.publish(*levels)
        with attach(name) as reader:
            assert not reader.should_prune()


def test_a_clean_stop_has_none(name: str, make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(name, period_seconds=5.0)
    bench.publish(Level.CRITICAL)
    with attach(name) as reader:
        assert reader.should_prune()
        bench.close()
        assert not reader.should_prune()
