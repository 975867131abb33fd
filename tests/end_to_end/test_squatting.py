"""Another user who takes a name first, or the directory, stops it and is named; nothing else happens."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shm_monitor import exits
from shm_monitor.segment import names
from tests.support.children import PYTHON
from tests.support.surroundings import UNMEASURED, child_environment, remove_files

if TYPE_CHECKING:
    from tests.support.light_sampler import LightSamplers

VICTIM = 40_000 + 2 * (os.getpid() % 5_000)  # nobody else's, not even another run of the tests
SQUATTER = VICTIM + 1

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        os.getuid() != 0 or shutil.which("setpriv") is None, reason="becoming somebody else needs root and setpriv"
    ),
]

MANAGER = """
import sys
import shm_monitor as sm
try:
    with sm.ResourceManager(sm.ResourceConfig(name=sys.argv[1])) as manager:
        print("live")
except sm.UntrustedError as error:
    print(error.owner_uid, error)
try:
    sm.attach(sys.argv[1], timeout=0.0)
except sm.SegmentError as error:
    print(getattr(error, "owner_uid", None), type(error).__name__)
"""


def as_victim(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python as a user with no rights but to read everything: the interpreter may lie in somebody's home."""
    user = [f"--reuid={VICTIM}", f"--regid={VICTIM}", "--clear-groups"]
    searching = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    return subprocess.run(
        ["setpriv", *user, *searching, *PYTHON, *arguments],
        env=child_environment(HOME="/nonexistent", PYTHONDONTWRITEBYTECODE="1", **UNMEASURED),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("suffix", ["", names.NEW_SUFFIX])
def test_a_squatted_name_is_a_typed_error_with_the_uid_of_its_owner(name: str, suffix: str) -> None:
    path = Path(f"{names.SHM_DIRECTORY}/{names.PREFIX}.{VICTIM}.{name}{suffix}")
    path.touch(mode=0o600)
    os.chown(path, SQUATTER, -1)
    try:
        done = as_victim("-c", MANAGER, name)
        run = as_victim("-m", "shm_monitor", "run", "--name", name, "--", "true")
        clean = as_victim("-m", "shm_monitor", "clean", "--json")
        assert path.exists()
    finally:
        remove_files(name)

    from_manager, from_reader = done.stdout.splitlines()
    assert from_manager.startswith(f"{SQUATTER} {path} is not trusted: owner {SQUATTER} is not this user ({VICTIM})")
    assert from_reader == (f"{SQUATTER} UntrustedError" if not suffix else "None NotFoundError")
    assert run.returncode == exits.NO_SAMPLER
    assert f"owner {SQUATTER} is not this user" in run.stderr
    assert "Traceback" not in done.stderr + run.stderr + clean.stderr
    assert clean.returncode == 0


def test_a_squatted_directory_is_a_typed_error_with_the_uid_of_its_owner(name: str) -> None:
    directory = Path(f"{names.SHM_DIRECTORY}/{names.PREFIX}.{VICTIM}")
    if directory.exists():  # of the test before
        directory.rmdir()
    directory.mkdir(0o700)
    (directory / "full").touch()  # so that no other run of the tests tidies it away
    os.chown(directory, SQUATTER, -1)
    try:
        done = as_victim("-c", MANAGER, name)
        listed = as_victim("-m", "shm_monitor", "list")
    finally:
        (directory / "full").unlink()
        directory.rmdir()

    assert done.stdout.startswith(
        f"{SQUATTER} {directory} is not trusted: owner {SQUATTER} is not this user ({VICTIM})"
    )
    assert (listed.returncode, listed.stdout) == (0, "")
    assert "1 of other users" in listed.stderr


def test_a_worker_of_another_user_is_told_that_root_has_a_sampler(name: str, light: LightSamplers) -> None:
    light.one(name)
    done = as_victim("-c", "import sys, shm_monitor as sm; sm.attach(sys.argv[1], timeout=0)", name)

    assert "root has a sampler of this name" in done.stderr
    assert f"shm-monitor run --name {name}" in done.stderr
