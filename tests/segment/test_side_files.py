"""Side files lie in one private directory of the user; nothing that lies there is believed before it was looked at."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from shm_monitor.errors import SamplerError, UntrustedError
from shm_monitor.segment import injection, names, side_files
from shm_monitor.segment.lock import Lock, holder_of
from tests.support.children import NOBODY, output_of
from tests.support.surroundings import files_of

SUFFIX = "~test"
READ, MAKE = os.O_RDONLY, os.O_RDWR | os.O_CREAT

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to somebody else")


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of this test's own for the side files; nothing lies there yet."""
    place = tmp_path / "shm-monitor"
    monkeypatch.setattr(names, "side_directory", lambda: str(place))
    return place


def made(name: str, suffix: str = SUFFIX) -> None:
    """Make a side file, and close it."""
    os.close(side_files.open_file(name, suffix, MAKE))


def test_a_side_file_is_private_in_a_private_directory(directory: Path, name: str) -> None:
    made(name)

    assert [stat.filemode(path.lstat().st_mode) for path in (directory, directory / f"{name}{SUFFIX}")] == [
        "drwx------",
        "-rw-------",
    ]


def test_only_segments_lie_in_shared_memory_itself(name: str) -> None:
    lock = Lock(name)
    injection.write(name, {"memory.usage_bytes": 1.0}, 60)
    own = f"/shm-monitor.{os.getuid()}"
    assert [path.rpartition(own)[2] for path in files_of(name)] == [f"/{name}~inject", f"/{name}~lock"]
    lock.release()


HOLD = """
import sys
from shm_monitor.segment.lock import Lock
from shm_monitor.errors import AlreadyRunningError
try:
    lock = Lock(sys.argv[1])
    print("locked")
except AlreadyRunningError as error:
    print("running", error.holder_pid)
"""


@pytest.mark.processes
@pytest.mark.parametrize("variable", ["XDG_RUNTIME_DIR", "TMPDIR", "HOME"])
def test_a_job_of_cron_and_one_of_a_login_agree_on_the_lock(name: str, tmp_path: Path, variable: str) -> None:
    """Only one of them has the variables of a session; two locks would be two samplers."""
    tmp_path.chmod(0o700)
    lock = Lock(name)
    try:
        assert output_of(HOLD, name, environ={variable: str(tmp_path)}) == f"running {os.getpid()}"
    finally:
        lock.release()


def a_fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


def a_directory(path: Path) -> None:
    path.mkdir(0o700)


def a_link(path: Path) -> None:
    target = path.with_name("elsewhere")
    target.touch(0o600)
    path.symlink_to(target)


def a_hard_link(path: Path) -> None:
    target = path.with_name("elsewhere")
    target.touch(0o600)
    path.hardlink_to(target)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as channel:
        here = os.open(path.parent, os.O_RDONLY)
        channel.bind(f"/proc/self/fd/{here}/{path.name}")  # a path of 108 bytes at most, unix(7)
        os.close(here)


def one_that_others_may_write(path: Path) -> None:
    path.touch()
    path.chmod(0o660)


@pytest.mark.parametrize("flags", [READ, MAKE], ids=["read", "make"])
@pytest.mark.parametrize("kind", [a_fifo, a_directory, a_link, a_hard_link, a_socket, one_that_others_may_write])
def test_what_is_no_file_of_ours_alone_is_refused_at_once(
    directory: Path, name: str, kind: Callable[[Path], None], flags: int
) -> None:
    """A FIFO would hang who opens it, a link would make us write elsewhere."""
    directory.mkdir(0o700)
    kind(directory / f"{name}{SUFFIX}")

    with pytest.raises(UntrustedError, match=SUFFIX) as caught:
        side_files.open_file(name, SUFFIX, flags)
    assert caught.value.owner_uid == os.getuid()


@needs_root
def test_a_side_file_of_somebody_else_is_refused_and_its_owner_named(directory: Path, name: str) -> None:
    made(name)
    os.chown(directory / f"{name}{SUFFIX}", NOBODY, -1)

    with pytest.raises(UntrustedError, match=f"owner {NOBODY} is not this user") as caught:
        side_files.open_file(name, SUFFIX, READ)
    assert caught.value.owner_uid == NOBODY


@pytest.mark.parametrize("kind", [a_fifo, a_link, a_socket, one_that_others_may_write])
def test_a_directory_that_is_none_is_refused(directory: Path, name: str, kind: Callable[[Path], None]) -> None:
    kind(directory)

    for flags in (READ, MAKE):
        with pytest.raises(UntrustedError, match=str(directory)):
            side_files.open_file(name, SUFFIX, flags)


def test_a_directory_that_others_may_write_is_refused(directory: Path, name: str) -> None:
    directory.mkdir()
    directory.chmod(0o770)

    with pytest.raises(UntrustedError, match="mode 0770 lets others write"):
        made(name)


def test_a_link_to_a_directory_of_ours_is_refused(directory: Path, name: str) -> None:
    elsewhere = directory.with_name("elsewhere")
    elsewhere.mkdir(0o700)
    directory.symlink_to(elsewhere)

    with pytest.raises(UntrustedError, match=str(directory)):
        made(name)
    assert list(elsewhere.iterdir()) == []


@needs_root
def test_a_directory_that_somebody_else_took_first_is_an_error_with_his_uid(directory: Path, name: str) -> None:
    directory.mkdir(0o700)
    os.chown(directory, NOBODY, -1)

    with pytest.raises(UntrustedError, match=f"owner {NOBODY} is not this user") as caught:
        Lock(name)
    assert caught.value.owner_uid == NOBODY
    assert holder_of(name) is None
    assert injection.read(name) is None


def test_what_does_not_exist_is_not_made_by_reading(directory: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        side_files.open_file(name, SUFFIX, READ)
    assert not directory.exists()


def test_a_place_that_does_not_exist_is_said_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "side_directory", lambda: str(tmp_path / "shm" / "shm-monitor"))

    with pytest.raises(SamplerError, match=r"shm does not exist.*try: shm-monitor doctor"):
        Lock(name)


@pytest.mark.processes
def test_too_many_open_files_are_not_taken_for_mistrust(name: str) -> None:
    code = """
import os, resource, sys
from shm_monitor.segment.lock import Lock
from shm_monitor.errors import SamplerError
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    Lock(sys.argv[1])
except SamplerError as error:
    print(error)
"""
    assert "Too many open files; try: ulimit -n" in output_of(code, name)


@pytest.mark.parametrize("kind", [a_fifo, a_link, a_directory, a_socket])
def test_a_lock_file_that_is_none_hangs_nobody(directory: Path, name: str, kind: Callable[[Path], None]) -> None:
    directory.mkdir(0o700)
    kind(directory / f"{name}{names.LOCK_SUFFIX}")

    with pytest.raises(UntrustedError):
        Lock(name)
    assert holder_of(name) is None


def test_a_fifo_in_the_place_of_an_injection_injects_nothing_and_is_replaced(directory: Path, name: str) -> None:
    directory.mkdir(0o700)
    a_fifo(directory / f"{name}{names.INJECT_SUFFIX}")
    injector = injection.Injector(name, {"memory.usage_bytes": 0})
    assert injection.read(name) is None
    assert injector.current() == {}

    injection.write(name, {"memory.usage_bytes": 7.0}, 60)
    assert injector.current() == {0: 7.0}


def test_an_injection_that_cannot_be_written_is_an_error_that_says_where(directory: Path, name: str) -> None:
    (directory / f"{name}{names.INJECT_SUFFIX}").mkdir(parents=True)
    directory.chmod(0o700)

    with pytest.raises(UntrustedError, match=names.INJECT_SUFFIX):
        injection.write(name, {"memory.usage_bytes": 7.0}, 60)


@pytest.mark.processes
def test_two_locks_of_one_name_are_one(name: str) -> None:
    lock = Lock(name)
    try:
        assert output_of(HOLD, name) == f"running {os.getpid()}"
    finally:
        lock.release()
    assert output_of(HOLD, name) == "locked"


def test_a_scan_takes_what_is_ours_and_counts_the_rest(directory: Path, name: str) -> None:
    """Here the directory above stands for /dev/shm, and is looked through as that is."""
    made(name)
    made("also-me")
    start = names.object_name("")
    for entry in ("segment", "new~new", "not a name", "", "esc\x1b[2J", "x" * 70, "empty~"):
        (directory.parent / f"{start}{entry}").touch()
    (directory.parent / "other").touch()
    (directory.parent / os.fsdecode(os.fsencode(start) + b"\xff")).touch()
    (directory / "no name~lock").touch()

    found = side_files.scan()

    assert found.names == sorted([name, "also-me", "segment", "new"])
    assert (found.foreign, found.malformed) == (0, 7)
    assert [file.name for file in side_files.files_of("new")] == [f"{start}new~new"]


@needs_root
def test_a_scan_counts_what_is_somebody_elses(directory: Path, name: str) -> None:
    directory.mkdir(0o700)
    squatted = directory.parent / names.object_name("default")
    squatted.touch()
    os.chown(squatted, NOBODY, -1)
    assert side_files.scan() == ([], 1, 0)

    os.chown(directory, NOBODY, -1)
    made_there = directory / f"{name}~lock"
    made_there.touch()
    assert side_files.scan() == ([], 2, 0)
