"""Which .env file is believed: one that nobody else could have put there, of a size that hurts nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shm_monitor.config.env_file import Content, lines, nearest
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.config.text import BYTES_MAX
from shm_monitor.errors import ConfigError
from tests.support.children import NOBODY
from tests.support.surroundings import child_environment

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
SOMEBODY_ELSE = NOBODY - 1


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A directory deep in one of this user's."""
    deep = tmp_path / "work" / "deep"
    deep.mkdir(parents=True)
    return deep


def found(directory: Path, script: Path | None = None) -> Path | None:
    """Return the file that the search finds from *directory*."""
    content = nearest(None if script is None else str(script), directory)
    return None if content is None else content.path


def test_a_file_beside_the_script_comes_before_one_above_the_working_directory(tmp_path: Path, work: Path) -> None:
    script = tmp_path / "app" / "train.py"
    script.parent.mkdir()
    above = work.parent / ".env"
    above.write_text("CHECK_INTERVAL=2\n")

    assert found(work, script) == above
    (script.parent / ".env").touch()
    assert found(work, script) == script.parent / ".env"
    assert nearest(None, work) == Content(above, b"CHECK_INTERVAL=2\n")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["directory", "fifo"])
def test_what_is_no_file_is_passed_over(work: Path, make: object) -> None:
    """Virtual environments are often called .env, and opening a FIFO would wait for ever."""
    make(work / ".env")  # type: ignore[operator]
    (work.parent / ".env").touch()

    assert found(work) == work.parent / ".env"


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o757])
def test_the_search_stops_at_a_directory_that_others_can_write(
    work: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    (work.parent.parent / ".env").touch()
    (work.parent / ".env").touch()
    work.parent.chmod(mode)

    assert found(work) is None
    assert f"{work.parent / '.env'} is left out" in caplog.text
    assert f"everybody may write it (its mode is {mode:04o})" in caplog.text
    (work / ".env").touch()
    assert found(work) == work / ".env", "below it nobody else can put one"


@needs_root
def test_the_search_stops_at_a_directory_that_is_somebody_elses(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    (work.parent.parent / ".env").touch()
    os.chown(work.parent, NOBODY, -1)

    assert found(work) is None
    assert caplog.text == "", "there is nothing that was left out"
    (work.parent / ".env").touch()
    assert found(work) is None
    assert f"it belongs to user {NOBODY}" in caplog.text


@pytest.mark.parametrize("mode", [0o602, 0o666, 0o646])
def test_a_file_that_others_can_write_is_left_out(work: Path, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    (work.parent / ".env").touch()
    (work / ".env").touch()
    (work / ".env").chmod(mode)

    assert found(work) is None, "nor is another one taken in its place"
    assert f"its mode is {mode:04o}" in caplog.text
    assert "--env-file" in caplog.text


@needs_root
@pytest.mark.parametrize("is_link", [False, True])
def test_a_file_of_somebody_else_is_left_out(work: Path, is_link: bool, caplog: pytest.LogCaptureFixture) -> None:
    file = work.parent / "theirs" if is_link else work / ".env"
    file.touch()
    os.chown(file, NOBODY, -1)
    if is_link:
        (work / ".env").symlink_to(file)

    assert found(work) is None
    assert f"it belongs to user {NOBODY}" in caplog.text


@needs_root
def test_the_group_of_the_owner_alone_is_nobody_else(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where each user has such a group, the umask is 002, and every file is writable by its group."""
    (work / ".env").touch()
    for path in (work, work / ".env"):
        path.chmod(path.stat().st_mode | 0o020)
    assert found(work) == work / ".env", "group root of user root"
    os.chown(work / ".env", 0, NOBODY)
    assert found(work) is None
    assert f"group {NOBODY} may write it" in caplog.text


@needs_root
def test_an_access_list_that_names_somebody_else_is_seen(work: Path) -> None:
    """The mode shows its mask as what the group may do."""
    file = work / ".env"
    file.touch()
    entries = [
        (0x01, 6, 2**32 - 1),
        (0x02, 6, NOBODY),
        (0x04, 0, 2**32 - 1),
        (0x10, 6, 2**32 - 1),
        (0x20, 0, 2**32 - 1),
    ]
    packed = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + may.to_bytes(2, "little") + who.to_bytes(4, "little") for tag, may, who in entries
    )
    try:
        os.setxattr(file, "system.posix_acl_access", packed)
    except OSError as error:
        pytest.skip(f"no access lists on this file system: {error}")

    assert file.stat().st_mode & 0o777 == 0o660
    assert found(work) is None


@pytest.mark.processes
@needs_root
def test_the_search_stops_at_the_border_of_a_file_system(tmp_path: Path) -> None:
    (tmp_path / ".env").touch()
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    code = """
import ctypes, os, sys
from pathlib import Path
from shm_monitor.config.env_file import nearest
above, mounted = Path(sys.argv[1]), Path(sys.argv[1], "mounted")
libc = ctypes.CDLL(None, use_errno=True)
os.unshare(os.CLONE_NEWNS) if hasattr(os, "unshare") else libc.unshare(0x20000)
assert libc.mount(None, b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE: nobody else sees what is mounted here
if libc.mount(b"tmpfs", bytes(mounted), b"tmpfs", 0, b"mode=700"):
    sys.exit(77)
(mounted / "deep").mkdir()
print(nearest(None, mounted / "deep"))
(mounted / ".env").touch()
print(nearest(None, mounted / "deep").path)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip("nothing may be mounted here")
    assert done.stdout.split("\n") == ["None", str(mounted / ".env"), ""], done.stderr
    assert found(mounted) == tmp_path / ".env", "here it is one file system"


def test_a_file_that_is_too_long_is_refused_without_being_read(work: Path) -> None:
    """A sparse file of 4 TB costs nobody anything to make."""
    with (work / ".env").open("wb") as file:
        file.truncate(2**42)
    for load in (lambda: nearest(None, work), lambda: lines(work / ".env")):
        with pytest.raises(ConfigError, match="more than 64 KiB"):
            load()
    os.truncate(work / ".env", BYTES_MAX)
    assert nearest(None, work) is not None


def test_a_working_directory_that_is_gone_has_no_file(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    work.rmdir()
    try:
        assert nearest(None) is None
    finally:
        os.chdir(work.parent)


@pytest.mark.parametrize("script", ["\0", "absent/train.py", "", "/proc/1/exe/train.py"])
def test_a_place_of_the_script_that_cannot_be_searched_has_no_file(work: Path, script: str) -> None:
    (work / ".env").touch()
    content = nearest(script, work)
    assert content is not None
    assert content.path == work / ".env"


# Named files


@needs_root
@pytest.mark.parametrize("why", ["owner", "mode"])
def test_a_named_file_is_refused_where_somebody_else_can_write_it(tmp_path: Path, why: str) -> None:
    file = tmp_path / "job.env"
    file.write_text("CHECK_INTERVAL=2\n")
    if why == "owner":
        os.chown(file, NOBODY, -1)
    else:
        file.chmod(0o666)

    with pytest.raises(ConfigError, match=r"this user or root that nobody else can write: (it belongs|everybody)"):
        ResourceConfig.load(file, {})


def test_a_named_file_may_lie_where_others_can_write(tmp_path: Path) -> None:
    """Its name is what somebody chose; its owner and mode say whose words it holds."""
    tmp_path.chmod(0o777)
    file = tmp_path / "job.env"
    file.write_text("CHECK_INTERVAL=2\n")

    assert ResourceConfig.load(file, {}).check_interval == 2.0


def test_a_pipe_can_be_named() -> None:
    """As `--env-file <(decrypt secrets)` does."""
    reading, writing = os.pipe()
    try:
        os.write(writing, b"CHECK_INTERVAL=2\n")
        os.close(writing)
        assert ResourceConfig.load(f"/dev/fd/{reading}", {}).check_interval == 2.0
    finally:
        os.close(reading)


def test_dev_null_is_no_file(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to root, and everybody may write it."""
    (work / ".env").write_text("CHECK_INTERVAL=2\n")
    monkeypatch.chdir(work)

    assert ResourceConfig.load(os.devnull, {}).check_interval == 1.0


# Other users, for real


ATTACK = """
import os, sys
import dotenv.parser, encodings.utf_8_sig, logging  # before the change of user, who may not see where Python is
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.config.text import BYTES_MAX
from shm_monitor.config.origins import for_serving
import grp, pwd
os.setgid(int(sys.argv[1])), os.setuid(int(sys.argv[1]))
os.chdir(sys.argv[2])
config = ResourceConfig.load(environ={})
print(config.check_interval, for_serving(None))
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory like /tmp: everybody may write into it."""
    import shutil
    import tempfile

    place = Path(tempfile.mkdtemp(prefix="test-shared-"))
    place.chmod(0o1777)
    yield place
    shutil.rmtree(place)


@pytest.mark.processes
@needs_root
@pytest.mark.parametrize(("author", "obeyed"), [("victim", True), ("root", True), ("attacker", False)])
def test_no_user_decides_the_settings_of_another(shared: Path, author: str, obeyed: bool) -> None:
    """The victim works in a directory of its own under one that everybody may write."""
    home = shared / "home"
    home.mkdir()
    file = (home if obeyed else shared) / ".env"
    file.write_text("CHECK_INTERVAL=2\nSHM_MONITOR_BIND=0.0.0.0:1\nSHM_MONITOR_TOKEN=attackers-own-token\n")
    os.chown(file, {"victim": NOBODY, "root": 0, "attacker": SOMEBODY_ELSE}[author], -1)
    os.chown(home, NOBODY, -1)
    done = subprocess.run(
        [sys.executable, "-c", ATTACK, str(NOBODY), str(home)],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout == f"{2.0 if obeyed else 1.0} {{}}\n", done.stderr
    assert "attackers-own-token" not in done.stderr
    assert ("SHM_MONITOR_BIND" in done.stderr) == obeyed
    assert (f"{file} is left out" in done.stderr) == (not obeyed)
