"""Frames of real samplers, here and behind a real API; and the two views that need no screen."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator

import pytest

import shm_monitor as sm
from shm_monitor.tui.plain import follow
from shm_monitor.tui.source import Frame, LocalSource, RemoteSource
from tests.support.api_server import TOKEN, ApiProcess, eventually
from tests.support.real_sampler import RealSampler, fast
from tests.support.screens import Scripted, snapshot
from tests.support.surroundings import child_environment

pytestmark = pytest.mark.processes


def test_no_sampler_is_a_frame_too(name: str) -> None:
    source = LocalSource(name)

    frame = source.newest()

    assert frame.state == "absent"
    assert not frame.live
    assert source.past(10) == []
    source.close()


def test_a_url_that_is_none_is_refused() -> None:
    for url in ("localhost:8909", "ftp://x", "http://", "http://user:secret@127.0.0.1/"):
        with pytest.raises(sm.ConfigError, match="http://HOST:PORT"):
            RemoteSource(url)


def test_an_api_that_is_not_there_is_unreachable() -> None:
    frame = RemoteSource("http://127.0.0.1:9").newest()

    assert frame.state == "unreachable"
    assert "127.0.0.1:9" in frame.detail


def test_plain_says_each_change_once() -> None:
    out = io.StringIO()
    source = Scripted(Frame("live", snapshot(1)))
    turns = iter([Frame("live", snapshot(2)), Frame("live", snapshot(3, "prune", 0.95), why=("memory: level",)), None])

    def wait(seconds: float) -> bool:
        frame = next(turns)
        source.frame = frame or source.frame
        return frame is None

    follow(source, out, wait)

    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert "ok: memory 8.0 GB of 16.0 GB" in lines[0]
    assert "prune: memory 15.2 GB of 16.0 GB; memory: level" in lines[1]


@pytest.fixture
def sampler(name: str) -> Iterator[RealSampler]:
    """A real sampler that has reported."""
    with RealSampler(fast(name, allow_injection=True)) as made:
        made.report()
        yield made


def test_a_sampler_of_this_machine_has_frames_a_past_and_takes_false_readings(name: str, sampler: RealSampler) -> None:
    source = LocalSource(name)

    frame = source.newest()
    assert frame.live
    assert frame.snapshot is not None
    assert frame.snapshot.memory.capacity_bytes
    past = [one.sequence for one in source.past(600)]
    assert past == list(range(1, len(past) + 1))
    source.inject({"memory_percent": 97.0}, 30.0)
    eventually(lambda: (seen := source.newest().snapshot) and seen.injected)
    source.close()


def test_an_api_shows_the_same_and_takes_none(name: str, sampler: RealSampler) -> None:
    secret = {"SHM_MONITOR_TOKEN": TOKEN}
    with ApiProcess("--name", name, "--bind", "127.0.0.1:0", environ=secret) as api:
        source = RemoteSource(api.url, TOKEN)
        frame = source.newest()
        refused = RemoteSource(api.url, "wrong-token-wrong").newest()

        assert frame.live
        assert frame.snapshot is not None
        assert frame.snapshot.name == name
        assert refused.state == "unreachable"
        assert refused.detail.startswith("401")
        with pytest.raises(sm.MonitorError, match="only reads"):
            source.inject({"memory_percent": 97.0}, 30.0)


@pytest.mark.parametrize("options", [("--width", "90"), ("--plain",)])
def test_once_prints_one_frame_and_its_status_is_the_answer(
    name: str, sampler: RealSampler, options: tuple[str, ...]
) -> None:
    if "--plain" not in options:
        pytest.importorskip("textual", reason="the extra tui is not installed")
    done = top("--once", "--name", name, *options)

    assert done.returncode == 0, done.stderr
    assert "memory" in done.stdout
    assert "\x1b" not in done.stdout


def test_once_without_a_sampler_says_so_with_3(name: str) -> None:
    done = top("--once", "--name", name)

    assert done.returncode == 3
    assert "absent" in done.stdout


def test_a_pipe_gets_lines_and_people_the_way_to_one_frame(name: str) -> None:
    command = [sys.executable, "-P", "-m", "shm_monitor", "top", "--name", name]
    with subprocess.Popen(
        command, env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "absent" in process.stdout.readline()
        process.terminate()
        assert "for one frame: shm-monitor top --once" in process.stderr.read()


def top(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``shm-monitor top``."""
    command = [sys.executable, "-P", "-m", "shm_monitor", "top", *arguments]
    return subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=60, check=False)
