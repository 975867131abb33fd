"""`shm-monitor episodes` shows the past, of a dead sampler too; `list` and `clean` treat the log as what it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import msgspec
import pytest

from shm_monitor import exits
from shm_monitor.cli import main
from shm_monitor.cli.clean import LOG_KEPT_SECONDS
from shm_monitor.cli.episodes import since_of
from shm_monitor.errors import ConfigError
from shm_monitor.segment import episode_file, names
from shm_monitor.snapshot.episode_log import EpisodeRecord, read
from tests.support.children import PYTHON
from tests.support.pressed import Driven
from tests.support.surroundings import child_environment, files_of

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def past(name: str) -> list[EpisodeRecord]:
    """The episode of a sampler that has stopped."""
    driven = Driven(name)
    driven.press()
    driven.calm()
    driven.close()
    return read(name)


@pytest.fixture
def following(name: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*PYTHON, "-m", "shm_monitor", "episodes", "--name", name, "--follow", "--json"],
        env=child_environment(),
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=_take_ctrl_c,  # noqa: PLW1509 - it sets one signal, and no lock is taken for that
    )
    yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _take_ctrl_c() -> None:
    """Tests that were started in the background of a shell ignore SIGINT, and their children would, too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def path_of(name: str) -> str:
    return names.side_path(name, names.EPISODES_SUFFIX)


def test_the_past_of_a_stopped_sampler_is_one_line_an_event(
    name: str, past: list[EpisodeRecord], capsys: Capture
) -> None:
    assert main(["episodes", "--name", name]) == exits.FINE
    out = capsys.readouterr().out

    assert len(out.splitlines()) == len(past)
    assert "memory        begin prune (level), at 90 B, limit 90 B, peak 90 B" in out
    assert "overall       over after " in out


def test_as_json_it_is_what_the_log_says(name: str, past: list[EpisodeRecord], capsys: Capture) -> None:
    assert main(["episodes", "--name", name, "--json"]) == exits.FINE
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert [(one["event"], one["limit"], one["number"]) for one in found] == [
        (one.event, one.limit, one.number) for one in past
    ]
    assert list(found[0]) == list(EpisodeRecord.__struct_fields__)


def test_what_came_after_a_time_is_shown_and_the_beginning_of_what_was_open_then(
    name: str, past: list[EpisodeRecord], capsys: Capture
) -> None:
    assert main(["episodes", "--name", name, "--json", "--since", repr(past[0].time)]) == exits.FINE
    shown = [one for one in past if one.event == "begin" or one.time > past[0].time]
    assert msgspec.json.decode(f"[{','.join(capsys.readouterr().out.splitlines())}]", type=list[EpisodeRecord]) == shown
    assert main(["episodes", "--name", name, "--since", repr(past[-1].time)]) == exits.FINE
    assert capsys.readouterr().out == ""
    assert main(["episodes", "--name", name, "--since", "1d"]) == exits.FINE
    assert len(capsys.readouterr().out.splitlines()) == len(past)


@pytest.mark.parametrize(
    ("text", "since"), [(None, 0.0), ("5", 5.0), ("1e3", 1000.0), ("90s", 910.0), ("2m", 880.0), ("0h", 1000.0)]
)
def test_a_time_is_unix_seconds_or_how_long_ago(text: str | None, since: float) -> None:
    assert since_of(text, 1000.0) == since


@pytest.mark.parametrize("text", ["", "s", "yesterday", "nan", "inf", "-1", "-1s", "5w", "1e999d"])
def test_anything_else_is_wrong_usage_that_says_what_is_allowed(text: str, capsys: Capture) -> None:
    with pytest.raises(ConfigError):
        since_of(text, 1000.0)
    assert main(["episodes", f"--since={text}"]) == exits.USAGE
    assert "90s, 10m, 2h, 1d" in capsys.readouterr().err


def test_a_name_without_a_log_has_no_episodes(name: str, capsys: Capture) -> None:
    assert main(["episodes", "--name", name]) == exits.FINE
    assert capsys.readouterr().out == ""


@pytest.mark.processes
def test_who_follows_sees_what_comes_and_ends_by_ctrl_c(name: str, following: subprocess.Popen[str]) -> None:
    assert following.stdout is not None
    driven = Driven(name)
    try:
        driven.press()
        first = json.loads(following.stdout.readline())
        driven.calm()
        seen = [first]
        while seen[-1]["event"] != "end":
            seen.append(json.loads(following.stdout.readline()))
    finally:
        driven.close()
    following.send_signal(signal.SIGINT)

    assert [one["time"] for one in seen] == [one.time for one in read(name)][: len(seen)]
    assert following.wait(20) == 128 + signal.SIGINT


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows its shared memory")
def test_a_log_alone_is_no_sampler(name: str, past: list[EpisodeRecord], capsys: Capture) -> None:
    assert past
    assert files_of(name) == [path_of(name)]
    assert main(["list"]) == exits.FINE
    assert name not in capsys.readouterr().out


def test_clean_leaves_a_log_for_a_day(name: str, past: list[EpisodeRecord], capsys: Capture) -> None:
    os.utime(path_of(name), (0, time.time() - LOG_KEPT_SECONDS + 60))
    assert main(["clean", "--json"]) == exits.FINE
    kept = next(one for one in json.loads(capsys.readouterr().out)["kept"] if one["name"] == name)
    assert "shm-monitor episodes" in kept["reason"]
    assert read(name) == past

    os.utime(path_of(name), (0, time.time() - LOG_KEPT_SECONDS - 60))
    assert main(["clean"]) == exits.FINE
    assert f"removed {name}: 1 files" in capsys.readouterr().out
    assert files_of(name) == []


def test_clean_removes_what_a_dead_sampler_left_but_not_its_log(
    name: str, past: list[EpisodeRecord], capsys: Capture
) -> None:
    other = names.side_path(name, names.INJECT_SUFFIX)
    os.close(os.open(other, os.O_CREAT | os.O_RDWR, 0o600))
    os.utime(other, (0, 0))
    assert main(["clean"]) == exits.FINE

    assert f"removed {name}: 1 files" in capsys.readouterr().out
    assert files_of(name) == [path_of(name)]
    assert len(episode_file.lines_of(name)) == len(past)
