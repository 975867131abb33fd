"""What a flag answers alone, and what it leaves to the slow path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from shm_monitor.schema import Level, Reason
from shm_monitor.segment import layout
from shm_monitor.segment.flags import ended_word, verdict_word
from shm_monitor.segment.view import View
from shm_monitor.worker.attaching import attach
from shm_monitor.worker.attachment import Attachment
from shm_monitor.worker.reader import Reader
from tests.support.light_sampler import LightSamplers, end
from tests.support.publishing import Bench, small_schema
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from shm_monitor.worker.attachment import OnStale

LIMITS = ("memory", "cpu", "network", "gpu:0", "gpu-memory:0")


@pytest.fixture
def many(make_bench: Callable[..., Bench], name: str) -> Bench:
    """Five limits, all calm, whose death the kernel marks."""
    bench = make_bench(name, small_schema(3, len(LIMITS)), by_kernel=True)
    bench.publish()
    return bench


@pytest.fixture
def no_slow_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the slow path an error."""

    def refuse(*_: object) -> None:
        raise AssertionError("the slow path")

    for way in ("decide", "level", "shed_fraction", "reason_bits", "live_words"):
        monkeypatch.setattr(Attachment, way, refuse)


def publish_words(bench: Bench, *words: int) -> None:
    """Publish a sample whose limits have these verdict words, the rest calm; the overall one is the highest of each."""
    given = [*words, *[0] * (len(LIMITS) - len(words))]
    bench.publisher.record["verdict"] = max(given)
    bench.publisher.publish(mono_ns=1, realtime_ns=1, verdicts=np.array(given, np.uint64))


@pytest.mark.usefixtures("no_slow_path")
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_each_watched_limit_alone_presses_and_no_other(many: Bench, count: int) -> None:
    with attach(many.name, watch=LIMITS[:count]) as reader:
        assert reader.should_prune() is False
        for place in range(len(LIMITS)):
            levels = [Level.OK] * len(LIMITS)
            levels[place] = Level.PRUNE
            many.publish(*levels)
            watched = place < count
            assert reader.should_prune() is watched
            assert reader.level() is (Level.PRUNE if watched else Level.OK)
            many.publish()
            assert reader.should_prune() is False


@pytest.mark.usefixtures("no_slow_path")
def test_while_an_unwatched_limit_presses_each_watched_one_still_does(many: Bench) -> None:
    """The overall flag is asked first; where it presses it says nothing of three of the five."""
    with attach(many.name, watch=LIMITS[:3]) as reader:
        for place in range(3):
            levels = [Level.OK, Level.OK, Level.OK, Level.OK, Level.CRITICAL]
            many.publish(*levels)
            assert reader.should_prune() is False
            levels[place] = Level.PRUNE
            many.publish(*levels)
            assert reader.should_prune() is True


@pytest.mark.usefixtures("no_slow_path")
@pytest.mark.parametrize("watch", [None, ("memory",), ("memory", "cpu", "network"), LIMITS])
def test_level_reasons_and_shed_fraction_come_from_the_flags(many: Bench, watch: tuple[str, ...] | None) -> None:
    """Of several the highest; the sample, which says something else here, is not looked at."""
    high = verdict_word(Level.CRITICAL, Reason.CAPACITY | Reason.LEVEL, 0.75)
    with attach(many.name, watch=watch) as reader:
        assert (reader.level(), reader.reasons(), reader.shed_fraction()) == (Level.OK, (), 0.0)
        publish_words(many, high)
        assert reader.level() is Level.CRITICAL
        assert reader.reasons() == ("level", "capacity")
        assert reader.shed_fraction() == pytest.approx(0.75, abs=1 / 4095)
        assert reader.should_prune() is True
        publish_words(many, verdict_word(Level.WARN, 0, 1 / 4095))
        assert (reader.level(), reader.reasons(), reader.shed_fraction()) == (Level.WARN, (), 1 / 4095)
        assert reader.should_prune() is False


def test_reasons_of_several_limits_are_those_of_any(many: Bench) -> None:
    publish_words(many, verdict_word(Level.PRUNE, Reason.LEVEL), verdict_word(Level.PRUNE, Reason.EVENT, 0.5))
    with attach(many.name, watch=["memory", "cpu"]) as reader:
        assert reader.reasons() == ("level", "event")
        assert reader.shed_fraction() == pytest.approx(0.5, abs=1 / 4095)


def test_watching_everything_is_the_overall_flag(many: Bench) -> None:
    """One load instead of five, and waiting needs no polling."""
    with attach(many.name, watch=reversed(LIMITS)) as reader:
        assert reader._attachment.indices == (0,)


@pytest.mark.parametrize(("on_stale", "answers"), [("never", (False, 0.0)), ("always", (True, 1.0)), ("hold", None)])
@pytest.mark.parametrize("watch", [("memory",), ("memory", "cpu")])
@pytest.mark.parametrize("level", [Level.WARN, Level.PRUNE])
def test_a_dead_flag_answers_by_on_stale(
    many: Bench, on_stale: OnStale, answers: tuple[bool, float] | None, watch: tuple[str, ...], level: Level
) -> None:
    """Asked again and again: most of the answers come without the slow path."""
    with attach(many.name, watch=watch, on_stale=on_stale) as reader:
        publish_words(many, verdict_word(level, 0, 0.25))
        for index in range(len(LIMITS) + 1):
            offset = layout.FLAGS_OFFSET + index * layout.FLAG_STRIDE
            many.store(offset, ended_word(View(many.name).flag(index)))
        should_prune, shed = answers or (level >= Level.PRUNE, 1024 / 4095)
        for _ in range(1000):
            assert reader.should_prune() is should_prune
        assert reader.shed_fraction() == pytest.approx(shed)
        assert reader.reasons() == ()


@pytest.mark.parametrize("watch", [None, ("memory", "cpu")])
def test_a_dead_sampler_is_rarely_looked_at(
    light: LightSamplers, name: str, monkeypatch: pytest.MonkeyPatch, watch: tuple[str, ...] | None
) -> None:
    if not light.by_kernel:
        pytest.skip("by the clock it may be alive again at any moment")
    started = light.one(name, limit_count=5, pressed=())
    with attach(name, watch=watch, on_stale="always") as reader:
        end(started.pid)
        wait_until(reader.should_prune)
        monkeypatch.setattr("shm_monitor.worker.hot_path.monotonic", lambda: 0.0)
        monkeypatch.setattr(Attachment, "live_words", None)
        assert all(reader.should_prune() for _ in range(1000))


def test_more_flags_than_there_were_are_asked_too(light: LightSamplers, name: str) -> None:
    """A sampler that comes back with further limits: what covered all of them does not any more."""
    first = light.one(name, limit_count=2, metric_count=3, pressed=())
    reader = attach(name, watch=["memory", "cpu"])
    assert reader.should_prune() is False
    end(first.pid)
    light.one(name, limit_count=4, metric_count=3, pressed=("cpu",))
    wait_until(reader.should_prune)
    assert reader.level() is Level.PRUNE


def asked(reader: Reader) -> tuple[object, ...]:
    """Return the answers of every question."""
    return reader.should_prune(), reader.level(), reader.shed_fraction(), reader.reasons()


@pytest.mark.parametrize("watch", [None, ("memory", "cpu"), LIMITS])
def test_no_sampler_is_calm_to_every_question(name: str, watch: tuple[str, ...] | None) -> None:
    with attach(name, watch=watch, timeout=0.0, required=False) as reader:
        assert asked(reader) == (False, Level.OK, 0.0, ())
        assert asked(reader) == (False, Level.OK, 0.0, ())
