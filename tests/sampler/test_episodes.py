"""The log of episodes: what begins, changes and ends is written once, outlives its sampler, and never stops it."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import shm_monitor as sm
from shm_monitor.segment import episode_file, injection, names, side_files
from shm_monitor.snapshot.episode_log import EpisodeRecord, encoded, follow, read, unfinished
from tests.support.children import NOT_PERMITTED, PRIVATE_SHM, run_python
from tests.support.fake_sampler import FakeSampler
from tests.support.pressed import SETTINGS, Driven
from tests.support.real_sampler import RealSampler, fast
from tests.support.surroundings import files_of
from tests.support.waiting import wait_until


@pytest.fixture
def driven(name: str) -> Iterator[Driven]:
    made = Driven(name)
    yield made
    made.close()


@pytest.fixture
def start(name: str) -> Iterator[Callable[[], FakeSampler]]:
    """Start samplers of one name, each in the place of the one before, which is killed as far as it can tell."""
    made: list[FakeSampler] = []

    def next_one() -> FakeSampler:
        if made:
            made[-1]._lock.release()
        made.append(FakeSampler(name, **SETTINGS))
        if made[:-1]:
            made[-1].now_ns = made[-2].now_ns
        return made[-1]

    yield next_one
    for one in made:
        one.close()


def path_of(name: str) -> Path:
    return Path(names.side_path(name, names.EPISODES_SUFFIX))


def events(name: str, limit: str = "memory") -> list[str]:
    """Return what happened to *limit*, in order."""
    return [one.event for one in read(name) if one.limit == limit]


def test_a_calm_sampler_writes_no_log(driven: Driven, name: str) -> None:
    driven.sampler.feed(*[50.0] * 20)

    assert not path_of(name).exists()


def test_an_episode_is_a_begin_each_change_of_level_and_an_end(driven: Driven, name: str) -> None:
    driven.press()
    driven.sampler.feed(98.0)
    driven.calm()

    found = [one for one in read(name) if one.limit == "memory"]
    begin, critical, end = found[0], found[1], found[-1]
    assert [begin.event, critical.event, end.event] == ["begin", "level", "end"]
    assert (begin.level, begin.reasons, begin.value, begin.unit) == ("prune", ("level",), 90.5, "bytes")
    assert (begin.peak, begin.limit_value, begin.capacity) == (90.5, 90.0, 100.0)
    assert begin.duration_seconds is None
    assert (critical.level, critical.value, critical.peak) == ("critical", 98.0, 98.0)
    assert (end.value, end.peak) == (50.0, 98.0)
    assert end.duration_seconds == pytest.approx(end.time - begin.time, abs=0.01)
    assert {one.number for one in found} == {begin.number}
    assert {one.since for one in found} == {begin.since}
    assert [one for one in found if one.event == "level" and one.level == "critical"] == [critical]


def test_what_was_relieved_and_is_forecast_again_ends_and_begins_with_one_sample(driven: Driven, name: str) -> None:
    driven.sampler.feed(*np.arange(50.0, 90.0, 4.0))
    assert events(name) == ["begin"]

    driven.sampler.feed(*np.arange(46.0, 95.0, 12.0))

    found = [one for one in read(name) if one.limit == "memory" and one.event != "level"]
    assert [one.event for one in found] == ["begin", "end", "begin"]
    assert events(name, "overall")[:3] == ["begin", "end", "begin"]
    assert found[0].number == found[1].number < found[2].number
    assert found[1].time == found[2].time
    now = driven.reader.episode()
    assert now is not None
    assert now.number == found[2].number


def test_the_number_and_the_time_are_those_that_workers_see(driven: Driven, name: str) -> None:
    driven.press()
    now, begin = driven.reader.episode(), read(name)[0]

    assert now is not None
    assert (begin.number, begin.limit, begin.level) == (now.number, now.limit, now.level)
    assert begin.since == pytest.approx(now.since, abs=0.001)


def test_while_it_lasts_nothing_is_written_again(driven: Driven, name: str) -> None:
    driven.press()
    before = path_of(name).stat()
    driven.sampler.feed(*[90.5] * 10)

    assert path_of(name).stat().st_mtime_ns == before.st_mtime_ns


def test_the_overall_verdict_has_one_episode_over_those_of_several_limits(name: str) -> None:
    sampler = FakeSampler(name, max_cpu_usage_percent=80.0, **SETTINGS)
    sampler.feed(*[50.0] * 6)
    try:
        sampler.feed(*[90.5] * 6)
        sampler.readings["cpu.cpu_percent"] = 95.0
        sampler.feed(*[90.5] * 6)
        sampler.feed(*[50.0] * 12)
        assert (events(name)[-1], events(name, "cpu"), events(name, "overall")) == ("end", ["begin"], ["begin"])
        sampler.readings["cpu.cpu_percent"] = 5.0
        sampler.feed(*[50.0] * 12)
    finally:
        sampler.close()

    overall = [one for one in read(name) if one.limit == "overall"]
    first, *_, last = (one for one in read(name) if one.limit != "overall")
    assert [one.event for one in overall] == ["begin", "end"]
    assert (overall[0].number, overall[0].since) == (first.number, first.since)
    assert last.limit == "cpu"
    assert overall[1].time == last.time
    assert (overall[1].value, overall[1].peak, overall[1].unit) == (None, None, "")


def test_false_readings_are_marked(name: str) -> None:
    sampler = FakeSampler(name, allow_injection=True, **SETTINGS)
    sampler.feed(50.0)
    injection.write(name, {"memory.usage_bytes": 99.0}, 3600.0)
    sampler.feed(50.0)
    sampler.close()

    assert next((one.event, one.injected) for one in read(name) if one.limit == "memory") == ("begin", True)


# The next sampler


def test_a_sampler_that_stops_says_what_it_leaves_open(driven: Driven, name: str) -> None:
    driven.press()
    begin = read(name)[0]
    driven.sampler.feed(*[90.5] * 3)
    driven.sampler.sampler.close()
    driven.sampler.sampler.close = lambda: None  # type: ignore[method-assign]

    assert events(name) == ["begin", "lost"]
    assert unfinished(name) == {}
    assert read(name)[-1].duration_seconds == pytest.approx(driven.sampler.now_ns / 1e9 - begin.number / 1e3)
    assert re.search(r"sampler stopped after \d+\.\d s; the episode was still open", str(read(name)[-1]))


def test_an_episode_that_lasts_over_a_death_goes_on_as_one(start: Callable[[], FakeSampler], name: str) -> None:
    first = start()
    first.feed(*[50.0] * 6, *[90.5] * 6)
    second = start()
    second.feed(90.5, 92.0)
    assert (events(name), events(name, "overall")) == (["begin"], ["begin"])
    second.feed(*[50.0] * 12)

    ended = [one for one in read(name) if one.event == "end"]
    assert [one.limit for one in ended] == ["memory", "overall"]
    assert {one.number for one in read(name)} == {read(name)[0].number}
    assert ended[0].peak == 92.0


def test_an_episode_that_nobody_saw_end_is_closed_by_the_next_sampler(
    start: Callable[[], FakeSampler], name: str
) -> None:
    first = start()
    first.feed(*[50.0] * 6, *[90.5] * 6)
    second = start()
    second.now_ns += 1000 * 10**9
    second.feed(50.0)

    lost = [one for one in read(name) if one.event == "lost"]
    assert {one.limit for one in lost} == {"memory", "overall"}
    assert {one.duration_seconds for one in lost} == {None}
    assert "end not seen: the sampler was killed, or had no readings" in str(lost[0])
    assert unfinished(name) == {}


def test_one_that_still_presses_after_a_gap_goes_on_as_workers_see_it(
    start: Callable[[], FakeSampler], name: str
) -> None:
    first = start()
    first.feed(*[50.0] * 6, *[90.5] * 6)
    second = start()
    second.now_ns += 1000 * 10**9
    second.feed(98.0)
    now = sm.attach(name).episode()
    second.feed(*[50.0] * 20)

    assert now is not None
    assert {one.number for one in read(name)} == {now.number}
    assert (events(name)[0], events(name)[-1], events(name).count("begin")) == ("begin", "end", 1)


def test_what_begins_in_the_place_of_a_lost_one_is_another_episode(start: Callable[[], FakeSampler], name: str) -> None:
    """The segment was removed, so the next sampler knows of the open episode by the log alone."""
    first = start()
    first.feed(*[50.0] * 6, *[90.5] * 6)
    os.unlink(names.object_path(name))
    second = start()
    second.feed(98.0)

    assert (events(name), events(name, "overall")) == (["begin", "lost", "begin"], ["begin", "lost", "begin"])
    assert len({one.number for one in read(name)}) == 2


def test_a_limit_that_there_is_no_more_is_closed(start: Callable[[], FakeSampler], name: str) -> None:
    first = start()
    first.feed(*[50.0] * 6, *[90.5] * 6)
    gone = read(name)[0]
    gone = type(gone)(**{key: getattr(gone, key) for key in gone.__struct_fields__} | {"limit": "gpu:7"})
    episode_file.append(name, encoded([gone]))
    start().feed(90.5)

    assert events(name, "gpu:7") == ["begin", "lost"]
    assert events(name) == ["begin"]


# The file


def record(number: int) -> EpisodeRecord:
    return EpisodeRecord(
        event="begin",
        limit="memory:0",
        number=number,
        time=float(number),
        since=float(number),
        level="prune",
        reasons=("level",),
        unit="bytes",
        value=90.5,
        peak=90.5,
        limit_value=90.0,
        capacity=100.0,
        duration_seconds=None,
        injected=False,
    )


def test_a_line_that_is_half_written_is_skipped_and_spoils_no_other(driven: Driven, name: str) -> None:
    driven.press()
    whole = path_of(name).read_bytes()
    path_of(name).write_bytes(whole + whole[:100])
    before = read(name)
    driven.calm()

    assert [one.event for one in before] == ["begin", "begin"]
    assert events(name)[0] == "begin"
    assert events(name)[-1] == "end"
    assert unfinished(name) == {}


def test_lines_that_are_no_events_are_skipped(name: str) -> None:
    episode_file.append(name, encoded([record(1)]))
    with path_of(name).open("ab") as file:
        file.write(b'\xff\xfe\n\n{}\n[1]\n{"event": "begin"}\n' + b"[" * 100_000 + b"\n")
    episode_file.append(name, encoded([record(2)]))

    assert read(name) == [record(1), record(2)]


def test_the_log_is_cut_to_its_newer_half_and_every_line_stays_whole(name: str) -> None:
    sizes = []
    for number in range(2000):
        episode_file.append(name, encoded([record(number)]))
        sizes.append(path_of(name).stat().st_size)

    kept = [one.number for one in read(name)]
    assert max(sizes) <= episode_file.SIZE_MAX_BYTES
    assert kept == list(range(kept[0], 2000))
    assert len(kept) * len(encoded([record(1000)])) > episode_file.SIZE_MAX_BYTES // 2 - 1000
    assert path_of(name).read_bytes().count(b"\n") == len(kept)
    assert files_of(name) == [str(path_of(name))]


def test_who_follows_sees_each_event_once_also_over_a_cut(name: str) -> None:
    seen: list[int] = []
    follower = follow(name)
    for begin in range(1, 1800, 300):
        episode_file.append(name, encoded([record(number) for number in range(begin, begin + 300)]))
        seen += [one.number for one in next(follower)]

    assert seen == list(range(1, 1801))
    assert len(read(name)) < 1800
    assert next(follower) == []


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/etc/hostname", path), os.mkdir])
def test_what_lies_in_its_place_is_said_once_and_stops_no_sampler(
    name: str, caplog: pytest.LogCaptureFixture, make: Callable[[Path], None]
) -> None:
    os.close(side_files.open_file(name, "~x", os.O_RDWR | os.O_CREAT))
    make(path_of(name))
    caplog.set_level(logging.WARNING, "shm_monitor.sampler")
    driven = Driven(name)
    try:
        for _ in range(3):
            driven.press()
            driven.calm()
        assert caplog.text.count("the log of episodes has gaps") == 1
        assert driven.reader.snapshot().stale is False
    finally:
        driven.close()
        if path_of(name).is_dir():
            path_of(name).rmdir()


def test_events_since_a_time_are_those_after_it(name: str) -> None:
    episode_file.append(name, encoded([record(1), record(2), record(3)]))

    assert [one.number for one in read(name, since=2.0)] == [3]
    assert read(f"{name}-none") == []


FULL = """
import logging, os, sys
private_shm("size=1m")
from shm_monitor.snapshot.episode_log import read
from tests.support.pressed import Driven
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s", level=logging.WARNING)
driven = Driven("tiny")
try:
    with open("/dev/shm/filler", "wb") as file:
        file.write(bytes(2**21))
except OSError as error:
    print("full:", error.errno)
for _ in range(3):
    driven.press()
    driven.calm()
print("events:", len(read("tiny")), "stale:", driven.reader.snapshot().stale)
os.unlink("/dev/shm/filler")
driven.press()
print("after:", [one.event for one in read("tiny")])
driven.close()
"""


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="mount namespaces are Linux's")
def test_a_full_dev_shm_is_said_once_and_the_log_goes_on_when_there_is_room() -> None:
    done = run_python(PRIVATE_SHM + FULL)
    if done.returncode == NOT_PERMITTED:
        pytest.skip("mounting a /dev/shm of one's own is not permitted here")

    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "full: 28" in lines
    assert "events: 0 stale: False" in lines
    assert "after: ['begin', 'begin']" in lines
    assert done.stdout.count("the log of episodes has gaps") == 1


# Whole processes


@pytest.mark.processes
def test_a_killed_sampler_leaves_its_log_and_the_next_one_goes_on_with_it(name: str) -> None:
    """A limit of 1 MB presses on any machine. Where SIGKILL tears a line, nothing else is lost."""
    config = fast(name, max_memory_usage_mb=1.0, max_cpu_usage_percent=None)
    with RealSampler(config) as first:
        first.report()
        wait_until(lambda: bool(unfinished(name)))
        first.process.kill()
        first.process.wait()
    before = read(name)
    torn = path_of(name).read_bytes()
    path_of(name).write_bytes(torn + torn[: len(torn.splitlines()[0]) // 2])
    assert read(name) == before
    with RealSampler(config) as second:
        second.report()
        wait_until(lambda: os.path.exists(names.object_path(name)) and sm.attach(name).level() >= sm.Level.PRUNE)
        second.process.terminate()
        status, said = second.end()

    assert status == 0, said
    found = read(name)
    assert found[: len(before)] == before
    assert unfinished(name) == {}
    for limit in {one.limit for one in found}:
        numbers = [one.number for one in found if one.limit == limit and one.event == "begin"]
        assert len(numbers) == len(set(numbers))
    assert found[-1].event == "lost"
    assert files_of(name) == [str(path_of(name))]
