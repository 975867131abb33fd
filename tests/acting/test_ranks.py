"""All ranks act at the same step, whoever sees the pressure, and whoever is late."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import shm_monitor as sm
from shm_monitor.schema import Level
from tests.support import rank_process

if TYPE_CHECKING:
    from tests.support.publishing import Bench


class Fixed:
    """A reader that says what it is told to."""

    def __init__(self, *levels: Level) -> None:
        self._levels = list(levels)

    def level(self) -> Level:
        return self._levels.pop(0) if len(self._levels) > 1 else self._levels[0]


def verdict(ranks: sm.HostRanks, number: int, *levels: Level, every: int = 1, timeout: float = 5.0) -> sm.AgreedVerdict:
    return sm.AgreedVerdict(Fixed(*levels), ranks.rank(number), every=every, timeout=timeout)  # type: ignore[arg-type]


def test_what_one_rank_sees_all_adopt_one_round_later() -> None:
    ranks = sm.HostRanks(2)
    calm, pressed = verdict(ranks, 0, Level.OK, every=4), verdict(ranks, 1, Level.PRUNE, every=4)

    told = [(calm(step), pressed(step)) for step in range(6)]

    assert told[:4] == [(Level.OK, Level.OK)] * 4
    assert told[4:] == [(Level.PRUNE, Level.PRUNE)] * 2


def test_one_rank_alone_agrees_with_itself() -> None:
    alone = sm.AgreedVerdict(Fixed(Level.CRITICAL), every=1)  # type: ignore[arg-type]

    assert [alone(step) for step in range(2)] == [Level.OK, Level.CRITICAL]


def test_a_rank_that_does_not_come_leaves_what_was_agreed_and_is_waited_for_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ranks = sm.HostRanks(2)
    first, second = verdict(ranks, 0, Level.PRUNE, timeout=0.05), verdict(ranks, 1, Level.OK)
    first(0)
    second(0)
    assert first(1) == Level.PRUNE
    for step in range(2, 30):
        assert first(step) == Level.PRUNE
    assert [one.getMessage() for one in caplog.records] == ["ranks did not agree in 0.05 s; going on with prune"]
    for step in range(1, 30):
        second(step)
    assert (first(30), second(30)) == (Level.PRUNE, Level.PRUNE), "caught up"


def test_a_backend_is_asked_for_one_thing_only() -> None:
    """As ``comm.allreduce(byte, op=MPI.MAX)`` of mpi4py would be."""

    class Mpi:
        def allreduce_max(self, byte: int) -> int:
            return max(byte, 3)

    agreed = sm.AgreedVerdict(Fixed(Level.OK), Mpi(), every=1)  # type: ignore[arg-type]
    assert [agreed(step) for step in range(2)] == [Level.OK, Level.CRITICAL]


def test_a_rank_whose_reader_raises_still_takes_part(name: str) -> None:
    ranks = sm.HostRanks(2)
    with sm.attach(name, timeout=0.0, required=False, on_stale="raise") as reader:
        strict = sm.AgreedVerdict(reader, ranks.rank(0), every=1)
        other = verdict(ranks, 1, Level.PRUNE)
        for step in range(2):
            told = (strict(step), other(step))
    assert told == (Level.PRUNE, Level.PRUNE)


def test_ranks_and_rounds_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        sm.HostRanks(2).rank(2)
    with pytest.raises(ValueError, match="count=0"):
        sm.HostRanks(0)
    with pytest.raises(ValueError, match="every=0"):
        sm.AgreedVerdict(Fixed(Level.OK), every=0)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("step_seconds", [0.0003, 0.0025])
def test_four_ranks_cross_300_times_and_never_split(bench: Bench, step_seconds: float) -> None:
    """Two of them take twice as long for a step, so what they see themselves differs all the time."""
    every = 2
    found = rank_process.agree(bench, steps=1500 * every, step_seconds=step_seconds, every=every)

    assert rank_process.splits(found) == 0
    assert rank_process.crossings(found) >= 300


@pytest.mark.processes
def test_four_ranks_never_split(bench: Bench) -> None:
    found = rank_process.agree(bench, steps=200, step_seconds=0.0003, every=4)

    assert len({tuple(one[1]) for one in found}) == 1


def test_ranks_of_torch_agree(tmp_path: object) -> None:
    """One rank of gloo; four are in the docs' table."""
    torch = pytest.importorskip("torch")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/ranks", rank=0, world_size=1)
    try:
        agreed = sm.AgreedVerdict(Fixed(Level.PRUNE), every=1)  # type: ignore[arg-type]
        assert [agreed(step) for step in range(2)] == [Level.OK, Level.PRUNE]
        agreed.close()
    finally:
        torch.distributed.destroy_process_group()
