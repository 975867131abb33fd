"""What a worker holds: answers while a sampler lives and while none does, in every kind of process."""

from __future__ import annotations

import logging
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from shm_monitor.errors import ConfigError, NotFoundError, StaleError, UnknownLimitError
from shm_monitor.schema import Level
from shm_monitor.worker.attaching import attach
from tests.support.light_sampler import LightSamplers, end
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from shm_monitor.worker.attachment import OnStale
    from tests.support.publishing import Bench

pytestmark = pytest.mark.processes

PRESSED = {"pressed": ("cpu",)}
ANSWERS = [("never", False), ("always", True), ("hold", True), ("raise", None)]


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings that were logged."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("by_kernel", [True, False], ids=["kernel", "clock"])
@pytest.mark.parametrize(("on_stale", "answer"), ANSWERS)
def test_on_stale_answers_for_a_dead_sampler(
    light: LightSamplers, name: str, by_kernel: bool, on_stale: OnStale, answer: bool | None
) -> None:
    """The dead sampler had pressed; with the clock alone the death shows after stale_after."""
    started = light.one(name, by_kernel=by_kernel, stale_after_seconds=30.0 if by_kernel else 0.3, **PRESSED)
    with attach(name, watch=["cpu"], on_stale=on_stale) as reader:
        assert reader.should_prune() is True
        assert reader.level() == Level.PRUNE
        end(started.pid)
        if not by_kernel:
            pressed, age_seconds = reader.should_prune(), reader.age()
            assert pressed is True or age_seconds > 0.3, "for the clock it is still alive"
            wait_until(lambda: reader.status().state == "stale")
        if answer is None:
            with pytest.raises(StaleError, match="stale") as caught:
                reader.should_prune()
            assert caught.value.name == name
            assert 0.0 <= caught.value.age_seconds < 60.0
        else:
            assert reader.should_prune() is answer
            assert (reader.level() >= Level.PRUNE) is answer
        assert light.one(name, by_kernel=by_kernel, pressed=(), stale_after_seconds=60.0).taken_over
        assert reader.should_prune() is False, "alive again, and calm"


@pytest.mark.parametrize(("on_stale", "answer"), ANSWERS)
def test_on_stale_answers_for_a_stopped_sampler(
    light: LightSamplers, name: str, on_stale: OnStale, answer: bool | None
) -> None:
    started = light.one(name, **PRESSED)
    with attach(name, watch=["cpu"], on_stale=on_stale) as reader:
        end(started.pid, signal.SIGTERM)
        if answer is None:
            with pytest.raises(StaleError, match="stopped"):
                reader.should_prune()
        else:
            assert reader.should_prune() is answer


@pytest.mark.parametrize(("on_stale", "answer"), [("never", False), ("always", True), ("hold", False), ("raise", None)])
def test_on_stale_answers_while_no_sampler_was_ever_there(name: str, on_stale: OnStale, answer: bool | None) -> None:
    with attach(name, timeout=0.0, required=False, on_stale=on_stale) as reader:
        if answer is None:
            with pytest.raises(StaleError, match="absent"):
                reader.should_prune()
        else:
            assert reader.should_prune() is answer
        assert reader.status().state == "absent"
        assert reader.status().sequence is None


def test_a_calm_dead_sampler_held_is_calm(light: LightSamplers, name: str) -> None:
    started = light.one(name, pressed=())
    with attach(name, on_stale="hold") as reader:
        end(started.pid)
        assert reader.should_prune() is False


def test_every_kind_of_on_stale_is_checked(name: str) -> None:
    with pytest.raises(ConfigError, match="never, always, hold, raise"):
        attach(name, on_stale="sometimes")  # type: ignore[arg-type]


def test_one_warning_per_death(light: LightSamplers, name: str, caplog: pytest.LogCaptureFixture) -> None:
    with attach(name, timeout=0.0, required=False) as reader:
        for deaths in range(1, 4):
            for _ in range(100):
                reader.should_prune()
            assert len(warnings_in(caplog)) == deaths
            started = light.one(name)
            wait_until(lambda: reader.status().state == "live")
            reader.should_prune()
            end(started.pid)
        reader.should_prune()
        assert [("is absent" in line, "is stale" in line) for line in warnings_in(caplog)] == [
            (True, False),
            *[(False, True)] * 3,
        ]
        assert all("shm-monitor status" in line for line in warnings_in(caplog))


def test_a_reader_that_needs_no_sampler_finds_the_one_that_comes(light: LightSamplers, name: str) -> None:
    """It looks five times a second at most, from inside the slow path."""
    with attach(name, timeout=0.0, required=False, watch=["cpu", "memory"]) as reader:
        assert reader.should_prune() is False
        light.one(name, limit_count=3, **PRESSED)
        wait_until(reader.should_prune)
        assert reader.snapshot().sequence > 0


def test_a_reader_without_a_sampler_looks_five_times_a_second_at_most(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shm_monitor.worker import attachment

    looks: list[str] = []

    def counted(wanted: str) -> None:
        looks.append(wanted)
        raise NotFoundError(wanted, "/dev/shm/nothing")

    with attach(name, timeout=0.0, required=False) as reader:
        monkeypatch.setattr(attachment, "View", counted)
        now = [1000.0]
        for clock in ("attachment.time.monotonic", "hot_path.monotonic"):
            monkeypatch.setattr(f"shm_monitor.worker.{clock}", lambda: now[0])
        for _ in range(50):
            now[0] += 0.1
            reader.should_prune()
        assert 24 <= len(looks) <= 26, "in 5 s"


def test_an_unknown_limit_is_named_with_those_that_exist(bench: Bench) -> None:
    with pytest.raises(UnknownLimitError, match="memory, cpu"):
        attach(bench.name, watch=["gpu-memory:7"])


def test_an_unknown_limit_never_disturbs_a_reader_that_does_not_require_a_sampler(bench: Bench) -> None:
    with attach(bench.name, watch=["gpu-memory:7"], required=False) as reader:
        assert reader.should_prune() is False
        bench.publish(Level.PRUNE)
        assert reader.should_prune() is True, "it answers by the overall verdict"


def test_several_limits_are_asked_together(bench: Bench) -> None:
    with attach(bench.name, watch=["memory", "cpu"]) as both, attach(bench.name, watch="cpu") as cpu:
        assert (both.should_prune(), cpu.should_prune()) == (False, False)
        bench.publish(Level.PRUNE, Level.OK)
        assert (both.should_prune(), cpu.should_prune()) == (True, False)
        bench.publish(Level.OK, Level.CRITICAL)
        assert (both.level(), cpu.level()) == (Level.CRITICAL, Level.CRITICAL)


def test_a_status_tells_everything(light: LightSamplers, name: str) -> None:
    started = light.one(name, interval_seconds=0.01)
    with attach(name) as reader:
        status = reader.status()
        assert (status.name, status.state, status.detail) == (name, "live", "")
        assert (status.pid, status.epoch, status.restarts) == (started.pid, started.epoch, 0)
        assert status.interval_seconds == 0.01
        assert status.age_seconds is not None
        assert 0.0 <= status.age_seconds < 60.0
        assert set(status.collectors) == {"cpu", "memory"}
        assert reader.age() >= 0.0


def test_a_reader_with_a_clock_sees_a_sampler_stop_and_go_on(light: LightSamplers, name: str) -> None:
    """SIGSTOP without a supervisor: hung, then alive again, and the next hang is another one."""
    started = light.one(name, by_kernel=False, stale_after_seconds=0.3)
    with attach(name, on_stale="always") as reader:
        for _ in range(2):
            assert reader.should_prune() is False
            os.kill(started.pid, signal.SIGSTOP)
            wait_until(reader.should_prune)
            os.kill(started.pid, signal.SIGCONT)
            wait_until(lambda: not reader.should_prune())


def test_nothing_a_reader_does_depends_on_the_wall_clock(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    with attach(bench.name) as reader:
        assert reader.should_prune() is False
        assert reader.status().state == "live"
