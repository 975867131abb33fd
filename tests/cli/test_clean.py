"""`clean` removes what is mine, dead and a minute old; `list` and `clean` survive whatever else lies there."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shm_monitor.cli import main
from shm_monitor.segment import injection, names, side_files
from shm_monitor.worker.attaching import attach
from tests.support.children import NOBODY, output_of
from tests.support.light_sampler import LightSamplers, end
from tests.support.publishing import Bench
from tests.support.surroundings import files_of

pytestmark = pytest.mark.processes

Capture = pytest.CaptureFixture[str]
Later = Callable[[float], None]

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to somebody else")


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """Move the clocks of this process on: a machine may be younger than what a test wants to be long ago."""

    def move(seconds: float) -> None:
        for clock, ahead in (("time", seconds), ("time_ns", int(seconds * 1e9)), ("monotonic_ns", int(seconds * 1e9))):
            real = getattr(time, clock)
            monkeypatch.setattr(time, clock, lambda real=real, ahead=ahead: real() + ahead)

    return move


def cleaned(capture: Capture, *options: str) -> dict[str, list[dict[str, object]]]:
    """Return what `clean --json` says."""
    assert main(["clean", "--json", *options]) == 0
    found: dict[str, list[dict[str, object]]] = json.loads(capture.readouterr().out)
    return found


def reason(said: dict[str, list[dict[str, object]]], name: str) -> str:
    """Return why *name* was kept; empty where it was not."""
    return next((str(one["reason"]) for one in said["kept"] if one["name"] == name), "")


def test_what_a_dead_sampler_left_a_minute_ago_is_removed_and_listed(
    name: str, light: LightSamplers, later: Later, capsys: Capture
) -> None:
    end(light.one(name).pid)
    later(61)
    before = files_of(name)

    said = cleaned(capsys)

    assert len(before) == 2
    assert files_of(name) == []
    mine = [one for one in said["removed"] if one["name"] == name]
    assert [sorted(one["files"]) for one in mine] == [before]  # type: ignore[call-overload]
    assert all(int(str(one["size_bytes"])) > 4096 for one in mine)


def test_a_dry_run_says_what_would_be_removed_and_touches_nothing(
    name: str, light: LightSamplers, later: Later, capsys: Capture
) -> None:
    end(light.one(name).pid)
    later(61)
    before = [(path, os.stat(path).st_ino, os.stat(path).st_mtime_ns) for path in files_of(name)]

    assert main(["clean", "--dry-run"]) == 0

    assert f"would remove {name}: 2 files, " in capsys.readouterr().out
    assert [(path, os.stat(path).st_ino, os.stat(path).st_mtime_ns) for path in files_of(name)] == before
    assert main(["clean"]) == 0
    assert f"removed {name}: 2 files, " in capsys.readouterr().out


def test_what_died_less_than_a_minute_ago_stays(name: str, light: LightSamplers, capsys: Capture) -> None:
    """Its supervisor may be about to start the next one, which goes on with the history."""
    end(light.one(name).pid)

    assert "dead for" in reason(cleaned(capsys), name)
    assert len(files_of(name)) == 2


def test_the_last_turn_counts_and_not_the_time_of_the_file(name: str, light: LightSamplers, capsys: Capture) -> None:
    """What is written into a mapping changes no time of the file: a sampler of yesterday may have died just now."""
    end(light.one(name).pid)
    for path in files_of(name):
        os.utime(path, (0, 0))

    assert "dead for" in reason(cleaned(capsys), name)
    assert len(files_of(name)) == 2


def test_what_a_live_sampler_owns_stays_whatever_its_age(
    name: str, light: LightSamplers, later: Later, capsys: Capture
) -> None:
    living = light.one(name)
    later(3600)

    assert f"process {living.pid} holds" in reason(cleaned(capsys), name)
    with attach(name) as reader:
        assert reader.snapshot().sequence


def test_a_sampler_that_turns_without_its_lock_file_stays(name: str, light: LightSamplers, capsys: Capture) -> None:
    light.one(name, interval_seconds=0.01)
    for path in files_of(name):
        os.utime(path, (0, 0))
    os.unlink(names.side_path(name, names.LOCK_SUFFIX))

    assert "lives" in reason(cleaned(capsys), name)
    assert os.path.exists(names.object_path(name))


def test_a_segment_of_a_bench_that_gave_its_lock_back_is_removed(name: str, later: Later, capsys: Capture) -> None:
    left = Bench(name)
    left.publish()
    left.lock.release()
    later(61)

    assert reason(cleaned(capsys), name) == ""
    assert not os.path.exists(names.object_path(name))
    left.close()


def test_a_side_file_that_a_worker_still_holds_stays(name: str, light: LightSamplers) -> None:
    """The next sampler finds its workers there."""
    end(light.one(name).pid)
    code = """
import fcntl, os, subprocess, sys
from shm_monitor.segment import side_files
fd = side_files.open_file(sys.argv[1], "~workers", os.O_RDWR | os.O_CREAT)
fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7)
os.utime(fd, (0, 0))
print(os.getpid())
command = [sys.executable, "-m", "shm_monitor", "clean", "--json"]
print(subprocess.run(command, capture_output=True, text=True).stdout)
"""
    pid, said = output_of(code, name).splitlines()

    assert f"process {pid} holds" in reason(json.loads(said), name)
    assert len(files_of(name)) == 3


def test_a_damaged_segment_and_a_lone_injection_go_by_the_time_of_their_files(
    name: str, later: Later, capsys: Capture
) -> None:
    Path(names.object_path(name)).write_bytes(b"\xff" * 8192)
    Path(names.object_path(name)).chmod(0o600)
    injection.write(name, {"memory.usage_bytes": 1.0}, 60)
    assert "dead for" in reason(cleaned(capsys), name)

    later(61)
    assert reason(cleaned(capsys), name) == ""
    assert files_of(name) == []


@pytest.mark.parametrize("suffix", [names.LOCK_SUFFIX, names.INJECT_SUFFIX])
def test_a_fifo_in_the_place_of_a_side_file_hangs_nobody(name: str, suffix: str, capsys: Capture) -> None:
    os.close(side_files.open_file(name, "~x", os.O_RDWR | os.O_CREAT))
    os.mkfifo(names.side_path(name, suffix), 0o600)

    assert "is not a regular file" in reason(cleaned(capsys), name)
    assert main(["list"]) == 0
    assert name in capsys.readouterr().out


def test_a_fifo_in_the_place_of_the_injection_stops_no_start(name: str) -> None:
    os.close(side_files.open_file(name, "~x", os.O_RDWR | os.O_CREAT))
    os.mkfifo(names.side_path(name, names.INJECT_SUFFIX), 0o600)
    code = """
import sys
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.manager import ResourceManager
with ResourceManager(ResourceConfig(name=sys.argv[1], allow_injection=True)) as manager:
    print(manager.reader.snapshot().injected)
"""
    assert output_of(code, name, timeout=60) == "()"


def test_a_file_with_a_bad_name_is_skipped_and_counted(name: str, light: LightSamplers, capsys: Capture) -> None:
    light.one(name)
    bad = [f"{names.object_path('')}{ending}" for ending in (f"{name} bad", f"{name}\x1b[2J", "." + name)]
    bad.append(os.fsdecode(os.fsencode(names.object_path(name)) + b"\xff"))
    for path in bad:
        Path(path).touch()
    try:
        for verb in (["list"], ["list", "--json"], ["clean"]):
            assert main(verb) == 0
            out, err = capsys.readouterr()
            assert int(err.rpartition(" that no sampler makes")[0].split()[-1]) >= len(bad)
            assert "\x1b" not in out + err
        assert all(os.path.exists(path) for path in bad)
    finally:
        for path in bad:
            os.unlink(path)


@needs_root
def test_a_foreign_segment_ends_neither_list_nor_clean(name: str) -> None:
    """Another user can put a file under my number into /dev/shm; the sticky bit keeps me from removing it."""
    directory = names.side_directory().replace(f".{os.getuid()}", f".{NOBODY}")
    path = f"{names.SHM_DIRECTORY}/{names.PREFIX}.{NOBODY}.{name}"
    Path(path).touch()
    os.chown(path, 12345, -1)
    code = f"""
import contextlib, copy, io, os, resource, sys
from shm_monitor.cli import main
from shm_monitor.errors import UntrustedError
from shm_monitor.worker.attaching import attach
with contextlib.redirect_stdout(io.StringIO()):  # loads what nobody may not see
    main(["list"]), main(["clean", "--dry-run"])
os.setuid({NOBODY})
print(main(["list"]), main(["clean"]), main(["clean", "--dry-run"]))
try:
    attach(sys.argv[1], timeout=0.0)
except UntrustedError as error:
    print(error.owner_uid, error)
"""
    try:
        statuses, error = output_of(code, name).splitlines()
        assert statuses == "0 0 0"
        assert error.startswith("12345 ")
        assert "owner 12345" in error
        assert os.path.exists(path)
    finally:
        os.unlink(path)
        if os.path.isdir(directory) and not os.listdir(directory):
            os.rmdir(directory)


def test_a_lock_on_the_whole_of_a_side_file_is_seen(name: str, capsys: Capture) -> None:
    """The file of a dead sampler's lock that some other program of mine has taken is not mine to remove."""
    fd = side_files.open_file(name, names.LOCK_SUFFIX, os.O_RDWR | os.O_CREAT)
    child = os.fork()
    if child == 0:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        os.write(fd, b"x")
        time.sleep(60)
        os._exit(0)
    try:
        while os.fstat(fd).st_size == 0:
            time.sleep(0.01)
        os.utime(fd, (0, 0))
        os.close(fd)
        assert f"process {child} holds" in reason(cleaned(capsys), name)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
