"""The size of the work follows what is left: predicted, cut, grown, and left alone where nothing can be known."""

from __future__ import annotations

import contextlib
import logging
import math
import pickle
from typing import TYPE_CHECKING

import pytest

import shm_monitor as sm
from tests.support.fake_sampler import FakeSampler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# A fake sampler has a capacity of 100 bytes, a limit of 90 and a target of 81; its clock is not that of the governor.
SETTINGS: dict[str, Any] = {"observation_period": 4.0, "target_utilization": 0.9}


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Stage:
    """A governor of 64 units over a fake sampler; ``pass_time`` moves both clocks."""

    def __init__(self, name: str, **settings: float) -> None:
        self.sampler = FakeSampler(name, **SETTINGS)
        self.sampler.feed(*[50.0] * 6)
        self.clock = Clock()
        self.governor = sm.Governor(64, reader=sm.attach(name), clock=self.clock, **settings)  # type: ignore[arg-type]

    def pass_time(self, seconds: float, usage: float) -> int:
        """Let samples of *usage* come, one a second, and ask at each; return the last size."""
        for _ in range(math.ceil(seconds)):
            self.sampler.feed(usage)
            self.clock.seconds += 1.0
            self.governor.step()
        return self.governor.size

    def press(self) -> None:
        """Let the level come to PRUNE: 90.3 is over the limit of 90, and less than half the way from 81 to 100."""
        while not self.governor._reader.should_prune():
            self.sampler.feed(90.3)
        self.clock.seconds += 1.0  # so that the governor looks at the new samples


@pytest.fixture
def stage(name: str) -> Iterator[Stage]:
    made = Stage(name)
    yield made
    with contextlib.suppress(AttributeError):  # closed by the test
        made.sampler.close()


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings of workers, not those of the sampler in this process."""
    return [one.getMessage() for one in caplog.records if (one.levelno, one.name) == (logging.WARNING, "shm_monitor")]


def ramped(stage: Stage) -> int:
    """Return the size after as many steps as a start takes."""
    for _ in range(10):
        stage.governor.step()
    return stage.governor.size


def test_it_starts_small_and_at_most_doubles_per_step(stage: Stage) -> None:
    assert [stage.governor.step() for _ in range(7)] == [4, 8, 16, 32, 64, 64, 64]


def test_a_step_takes_no_more_than_its_share_of_what_is_left(stage: Stage) -> None:
    """50 of 100 are left, a unit takes 2, so 0.6 x 50 / 2 fit."""
    stage.governor.observe(2, 4)
    assert ramped(stage) == 15
    assert stage.pass_time(1, 80.0) == 6
    assert stage.pass_time(1, 50.0) == 12, "it recovers by doubling"
    assert stage.pass_time(1, 50.0) == 15


def test_work_that_outlasts_what_can_be_foreseen_takes_down_to_half_of_that(stage: Stage) -> None:
    """Samples come once a second: of what is left after ten of them, nothing is known."""
    for seconds, size in ((1.0, 15), (6.0, 12), (10.0, 7), (1000.0, 7)):
        governor = sm.Governor(64, reader=stage.governor._reader, clock=stage.clock)
        governor.step()
        stage.clock.seconds += seconds
        governor.observe(2, 4)
        assert [governor.step() for _ in range(10)][-1] == size


def test_the_floor_holds_however_little_is_left(stage: Stage) -> None:
    stage.governor.observe(1, 1000)
    assert ramped(stage) == 1


def test_work_of_which_nothing_is_known_teaches_nothing(stage: Stage) -> None:
    governor = stage.governor
    governor.observe(4, 40)
    governor.observe(8, 0)
    governor.observe(0, 100)
    assert governor.footprint.bytes_of(4) == 40


def test_what_is_fixed_does_not_count_as_units(stage: Stage) -> None:
    """A piece takes 8 bytes and one per unit, so that 22 fit into 0.6 x 50, not the 14 of 17 bytes for 8 units."""
    for units in (4, 8, 16) * 50:
        stage.governor.observe(units, 8 + units)
    assert ramped(stage) in (21, 22)


def test_a_sample_from_the_midst_of_our_work_counts_half_of_it_as_free_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 units take 16 bytes: of the 30 that were left meanwhile it is 38 now, of which 0.6 hold 11 units."""
    governor, outlook = stage.governor, sm.Reader.outlook
    monkeypatch.setattr(sm.Reader, "outlook", lambda reader: outlook(reader)._replace(age_seconds=2.0))
    governor.step()
    stage.sampler.feed(70.0)
    stage.clock.seconds += 5.0
    governor.observe(8, 16)
    assert ramped(stage) == 11
    stage.clock.seconds += 5.0
    stage.sampler.feed(70.0)
    assert ramped(stage) == 9, "nobody worked when this one was taken"


def test_it_cuts_once_per_settle_and_stops_at_the_target(stage: Stage) -> None:
    ramped(stage)
    stage.press()
    assert stage.governor.step() == 32
    assert [stage.governor.step() for _ in range(100)] == [32] * 100, "an episode is not a hundred"
    assert stage.pass_time(2, 90.0) == 16, "less, but over the target of 81"
    assert stage.pass_time(1, 80.0) == 16
    assert stage.governor._reader.should_prune(), "held for a whole period"
    assert stage.pass_time(2, 80.0) == 16, "below the target there is nothing more to shed"


def test_once_back_at_the_target_only_what_is_over_the_limit_is_cut_again(stage: Stage) -> None:
    ramped(stage)
    stage.press()
    assert stage.governor.step() == 32
    stage.pass_time(1, 80.0)
    assert stage.pass_time(1, 85.0) == 32, "over the target of 81 for a moment, while the flag holds"
    assert stage.governor._reader.should_prune()
    assert stage.pass_time(1, 91.0) == 15, "over the limit of 90"


def test_the_size_recovers_while_the_flag_is_only_held(stage: Stage) -> None:
    """A unit takes a byte: 5 fit into 0.6 x 9.7. Below the target, no end in sight, it is half of the 30 before."""
    stage.governor.observe(1, 1)
    ramped(stage)
    stage.press()
    assert stage.governor.step() == 5
    stage.pass_time(2, 70.0)
    assert stage.governor._reader.should_prune()
    assert stage.governor.size == 15


def test_the_worse_it_is_the_more_is_cut(stage: Stage) -> None:
    """At 98 the fraction is (98 - 81) / (100 - 81), so a tenth of 64 stays."""
    ramped(stage)
    stage.sampler.feed(98.0)
    stage.clock.seconds += 1.0
    assert stage.governor.step() == 6


def changes(stage: Stage, seconds: int, usage: float) -> list[tuple[int, int]]:
    """Let *seconds* pass; return (seconds since the last change, size) for each change of the size."""
    found, size, since = [], stage.governor.size, 0
    for second in range(1, seconds + 1):
        if stage.pass_time(1, usage) != size:
            size = stage.governor.size
            found.append((second - since, size))
            since = second
    return found


def test_it_returns_twofold_to_where_it_pressed_and_grows_by_a_sixteenth_per_hold_beyond(stage: Stage) -> None:
    stage.governor.observe(2, 4)
    assert ramped(stage) == 15
    stage.press()
    stage.governor.step()
    assert stage.pass_time(4, 10.0) == 7
    (waited, size), *later = changes(stage, 40, 10.0)
    assert (waited <= 3, size) == (True, 14), "calm, and its last change is more than a settle ago"
    assert later == [(2, 15), (10, 19), (10, 23), (10, 27)]


def test_what_is_not_used_does_not_grow(stage: Stage) -> None:
    ramped(stage)
    stage.press()
    stage.governor.step()
    stage.governor.observe(8, 0)
    assert stage.pass_time(40, 50.0) == 32, "8 of 32 were used"
    stage.governor.observe(20, 0)
    assert stage.pass_time(1, 50.0) == 64


def test_a_relapse_is_remembered(stage: Stage) -> None:
    """32 -> 16, back to 32, relapsed: 16, then in quarters to 32, and by one beyond."""
    assert [stage.governor.step() for _ in range(4)][-1] == 32
    stage.press()
    assert stage.governor.step() == 16
    assert stage.pass_time(8, 50.0) == 32
    stage.press()
    assert stage.governor.step() == 16
    assert [stage.pass_time(10, 50.0) for _ in range(6)] == [20, 24, 28, 32, 33, 34]


def test_the_floor_is_said_once_per_episode(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    governor = stage.governor
    ramped(stage)
    for usage in (97.0, 96.0, 95.0, 94.0, 93.0, 92.0, 91.5):
        stage.pass_time(3, usage)
    assert governor.size == 1
    assert governor.trouble == "floor"
    said = warnings_in(caplog)
    assert len(said) == 1
    assert "smallest size, 1," in said[0]
    assert "memory of the host:" in said[0], "with its explanation"
    stage.pass_time(6, 50.0)
    assert not governor.trouble


def test_two_cuts_without_effect_end_the_cutting(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    ramped(stage)
    stage.press()
    assert stage.pass_time(20, 90.3) == 16, "64, 32, 16, and no further"
    assert stage.governor.trouble == "external"
    assert [one.partition(":")[0] for one in warnings_in(caplog)] == ["2 cuts to 16 had no effect"]
    stage.pass_time(6, 50.0)
    assert not stage.governor.trouble
    assert stage.pass_time(10, 50.0) > 16


def test_a_ramp_is_followed_to_the_end_of_the_step(stage: Stage) -> None:
    """What is left now is not left at the end of a step of two seconds."""
    governor = stage.governor
    governor.step()
    stage.clock.seconds += 2.0
    governor.observe(1, 1)
    ramped(stage)
    calm = governor._cap()
    for usage in (55.0, 60.0, 65.0, 70.0):
        stage.pass_time(1, usage)

    assert calm == 30
    assert governor._outlook.seconds_to_end < 10
    assert governor._cap() < 0.6 * 30 * 0.9


def test_without_a_sampler_the_size_is_full_and_that_is_said_once(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SHM_MONITOR_NAME", name)
    governor = sm.Governor(64)
    for _ in range(100):
        assert governor.step() == 64
    assert sum("sizes stay at 64" in one.getMessage() for one in caplog.records) == 1


def test_a_sampler_that_comes_later_is_obeyed(name: str) -> None:
    clock = Clock()
    governor = sm.Governor(64, reader=sm.attach(name, timeout=0.0, required=False), clock=clock)
    governor.step()
    governor.observe(1, 10)
    sampler = FakeSampler(name, **SETTINGS)
    sampler.feed(50.0)
    governor._reader._attachment._next_look = 0.0  # it looks once a second
    clock.seconds += 2.0
    assert governor.step() == 3
    sampler.close()


def test_a_dead_sampler_leaves_the_size_for_a_hold_and_then_it_is_full(stage: Stage) -> None:
    ramped(stage)
    stage.press()
    assert stage.governor.step() == 32
    stage.sampler.close()
    for _ in range(10):
        stage.clock.seconds += 1.0
        assert stage.governor.step() == 32, "kept, not grown"
    stage.clock.seconds += 1.1
    assert stage.governor.step() == 64


def test_who_asked_for_caution_keeps_the_size_under_a_dead_sampler(stage: Stage) -> None:
    governor = sm.Governor(64, reader=sm.attach(stage.governor._reader.name, on_stale="always"), clock=stage.clock)
    for _ in range(10):
        governor.step()
    stage.press()
    assert governor.step() == 32
    stage.sampler.close()
    stage.clock.seconds += 100.0
    governor.step()
    stage.clock.seconds += 100.0
    assert governor.step() == 32


def test_a_device_is_governed_by_what_the_caller_says_is_left(name: str) -> None:
    """A framework's allocator keeps what it freed: only it knows what is left for the next step."""
    sampler = FakeSampler(name, gpus=1, max_gpu_memory_percent=90.0)
    sampler.feed(50.0)
    left = 600.0
    governor = sm.Governor(64, reader=sm.attach(name), headroom=lambda: left, clock=Clock())
    governor.step()
    governor.observe(4, 40)
    assert [governor.step() for _ in range(5)] == [8, 16, 32, 36, 36]
    sampler.close()


def test_a_governor_travels_with_what_it_has_learned(stage: Stage) -> None:
    stage.governor.observe(2, 4)
    ramped(stage)
    stage.governor._clock = _later
    copy = pickle.loads(pickle.dumps(stage.governor))
    assert copy.size == 15
    assert copy.step() == 15
    assert copy.footprint.bytes_per_unit == 2


def _later() -> float:
    return 2000.0


@pytest.mark.parametrize(
    "wrong",
    [{"floor": 0}, {"floor": 65}, {"decrease": 1.0}, {"safety": 0.0}, {"settle": -1.0}, {"hold": -1.0}],
    ids=str,
)
def test_numbers_that_contradict_each_other_are_refused(name: str, wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        sm.Governor(64, reader=sm.attach(name, timeout=0.0, required=False), **wrong)  # type: ignore[arg-type]
