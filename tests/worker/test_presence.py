"""Workers that present themselves are seen, asked one by one, and gone with their process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import shm_monitor as sm
from shm_monitor import cli
from shm_monitor.segment import presence
from shm_monitor.segment.presence import Register
from shm_monitor.worker.presence import Request
from tests.support.fake_sampler import FakeSampler
from tests.support.herd import Worker
from tests.support.surroundings import child_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not presence.HAS_PRESENCE, reason="record locks and /proc are looked at as Linux has them"),
]

MB = 2**20
SETTINGS: dict[str, Any] = {"observation_period": 4.0, "target_utilization": 0.9, "stale_after": 60.0}


class Stage:
    """A sampler of a machine with 100 bytes, and workers that hold megabytes: only their proportions count."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sampler = FakeSampler(name, **SETTINGS)
        self.workers: list[Worker] = []
        self.sampler.feed(*[50.0] * 6)

    def worker(self, megabytes: int) -> Worker:
        self.workers.append(Worker(self.name, megabytes))
        return self.workers[-1]

    def feed_until(self, usage: float, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60.0
        while not condition():
            assert time.monotonic() < deadline
            self.sampler.feed(usage)

    def close(self) -> None:
        for one in self.workers:
            one.kill()
        self.sampler.close()


@pytest.fixture
def stage(name: str) -> Iterator[Stage]:
    made = Stage(name)
    yield made
    made.close()


def test_of_several_only_the_largest_is_asked_and_the_others_go_on(stage: Stage) -> None:
    small, large = stage.worker(8), stage.worker(64)
    everybody = sm.attach(stage.name, watch=["memory"])
    stage.feed_until(90.5, everybody.should_prune)
    stage.sampler.feed(90.5)

    told = large.ask()
    assert told["prune"]
    assert told["level"] == "PRUNE"
    assert told["request"] == told["shed_bytes"] > 0
    assert "asked to shed" in told["text"]
    assert "x its share" in told["text"]
    spared = small.ask()
    assert not spared["prune"]
    assert spared["level"] == "WARN"
    assert spared["shed_bytes"] == 0
    assert everybody.should_prune(), "who is not present is told as before"


def test_a_worker_is_calm_before_the_sampler_has_seen_it_and_after_the_pressure(stage: Stage) -> None:
    worker = stage.worker(16)
    assert not worker.ask()["prune"]
    stage.feed_until(90.5, lambda: worker.ask()["prune"])
    stage.feed_until(50.0, lambda: not worker.ask()["prune"])


def test_one_that_comes_during_pressure_is_told_what_everybody_is_until_it_is_seen(stage: Stage) -> None:
    stage.feed_until(90.5, sm.attach(stage.name).should_prune)

    assert stage.worker(16).ask()["prune"]


def test_critical_asks_all(stage: Stage) -> None:
    small, large = stage.worker(8), stage.worker(64)
    stage.feed_until(99.0, lambda: large.ask()["level"] == "CRITICAL")

    assert small.ask()["prune"]


def test_a_dead_worker_is_gone_at_the_next_turn_and_its_slot_is_free(stage: Stage) -> None:
    first, second = stage.worker(1), stage.worker(1)
    assert (first.slot, second.slot) == (0, 1)
    first.kill()
    stage.workers.remove(first)
    stage.sampler.feed(50.0)

    assert [one.slot for one in sm.attach(stage.name).snapshot().present] == [1]
    assert stage.worker(1).slot == 0


def test_they_are_shown_with_pid_holding_share_and_answer(stage: Stage) -> None:
    worker = stage.worker(64)
    reader = sm.attach(stage.name)
    stage.feed_until(90.5, lambda: any(one.request_bytes for one in reader.snapshot().present))
    worker.do("shed 40")
    (shown,) = reader.snapshot().present

    assert shown.pid == worker.process.pid
    assert 50 * MB < shown.held_bytes < 90 * MB
    assert shown.share == pytest.approx(1.0)
    assert shown.shed_bytes == 40 * MB
    assert shown.answered_round == shown.round_number >= 1


def test_a_forked_child_has_a_slot_of_its_own(stage: Stage) -> None:
    worker = stage.worker(1)

    assert int(worker.do("fork")) == 1


def test_threads_and_readers_of_one_process_share_a_slot(name: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        slots = list(pool.map(lambda _: presence.take_slot(name, 1.0), range(8)))
    assert set(slots) == {0}
    for _ in range(7):
        presence.give_back(name)
    assert seen_by_another(name) == [0]
    presence.give_back(name)
    assert seen_by_another(name) == []


def test_threads_that_attach_at_once_are_one_worker(stage: Stage) -> None:
    with ThreadPoolExecutor(8) as pool:
        readers = list(pool.map(lambda _: sm.attach(stage.name, present=True), range(8)))
    assert seen_by_another(stage.name) == [0]
    readers.pop().close()
    assert seen_by_another(stage.name) == [0]
    for one in readers:
        one.close()
    assert seen_by_another(stage.name) == []


def test_a_request_says_how_much_and_why() -> None:
    text = "asked to shed 105.0 MB in round 7, because it holds 412.0 MB, 1.9 x its share"
    assert str(Request(7, 105 * MB, 412 * MB, 1.9)) == text

    on_gpu = Request(7, 105 * MB, 412 * MB, 1.9, "gpu-memory:1")
    assert str(on_gpu) == text.replace("MB in", "MB of gpu-memory:1 in")


def test_status_shows_what_each_is_asked_and_names_who_does_not_react(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = stage.worker(64)
    stage.feed_until(90.5, lambda: worker.ask()["request"] is not None)
    assert cli.main(["status", "--name", stage.name]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "worker" in line]
    assert re.fullmatch(
        rf" *worker {worker.pid} +-m tests.support.present_worker holds \d\d\.\d MB, "
        r"1\.0 x its share, asked to shed \d+ B in round 1",
        line,
    )

    stage.sampler.feed(*[90.5] * 6)
    cli.main(["status", "--name", stage.name])
    assert "asked in vain 2 times" in capsys.readouterr().out


def test_a_reader_that_is_dropped_gives_its_slot_back(stage: Stage) -> None:
    reader = sm.attach(stage.name, present=True)
    assert seen_by_another(stage.name) == [0]
    del reader
    assert seen_by_another(stage.name) == []


def seen_by_another(name: str) -> list[int]:
    code = "import sys; from shm_monitor.segment.presence import Register\n"
    code += "print([slot for slot, _ in Register(sys.argv[1]).holders()])"
    done = subprocess.run(
        [sys.executable, "-c", code, name], env=child_environment(), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_closing_any_descriptor_of_the_file_loses_the_lock_and_so_the_package_keeps_one(stage: Stage) -> None:
    """POSIX: the first half is what must not be done; the second, that readers that come and go do not do it."""
    careless, careful = stage.worker(1), stage.worker(1)
    careless.do("close-any")
    assert [slot for slot, _ in Register(stage.name).holders()] == [careful.slot]

    for _ in range(3):
        careful.do("fork")
        careful.ask()
    assert [slot for slot, _ in Register(stage.name).holders()] == [careful.slot]


PRESENT = """
import multiprocessing as mp, sys, shm_monitor as sm

def slot(name):
    return sm.attach(name, present=True)._attachment.presence.slot

if __name__ == "__main__":
    mine = sm.attach(sys.argv[1], present=True)
    with mp.get_context(sys.argv[2]).Pool(1) as pool:
        print(mine._attachment.presence.slot, pool.apply(slot, (sys.argv[1],)))
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_every_start_method_presents_itself(stage: Stage, method: str, tmp_path: Path) -> None:
    script = tmp_path / "workers.py"
    script.write_text(PRESENT)
    command = [sys.executable, "-W", "ignore", str(script), stage.name, method]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=100, check=False)

    assert done.stdout.split() == ["0", "1"], done.stderr
