"""One sampler per name, whatever happens to its lock file."""

from __future__ import annotations

import os
import signal
import time

import pytest

from shm_monitor.errors import AlreadyRunningError, UntrustedError
from shm_monitor.segment.lock import Lock, holder_of
from shm_monitor.segment.names import LOCK_SUFFIX, side_path
from shm_monitor.worker.attaching import attach
from tests.support.children import NOBODY, output_of, run_python
from tests.support.light_sampler import LightSamplers, Order, end


@pytest.fixture
def path(name: str) -> str:
    """The lock file of this test's name."""
    return side_path(name, LOCK_SUFFIX)


def test_of_two_samplers_started_at_once_exactly_one_wins(light: LightSamplers, name: str) -> None:
    """50 times, on a name that is new, left by a killed sampler, or given back by one that stopped."""
    for turn in range(50):
        at_ns = time.monotonic_ns() + 3_000_000
        both = light.start(Order(name, at_ns=at_ns), Order(name, at_ns=at_ns))
        winner, loser = sorted(both, key=lambda one: bool(one.error))
        assert (winner.error, loser.error) == ("", "AlreadyRunningError"), turn
        assert loser.holder_pid == winner.pid
        assert f"process {winner.pid}" in loser.message
        with attach(name) as reader:
            assert reader.status().epoch == winner.epoch
        end(winner.pid, signal.SIGTERM if turn % 2 else signal.SIGKILL)


def test_the_holder_is_named_while_it_lives(light: LightSamplers, name: str, path: str) -> None:
    assert holder_of(name) is None
    started = light.one(name)
    assert holder_of(name) == started.pid
    end(started.pid)
    assert holder_of(name) is None
    assert os.path.exists(path), "a killed sampler leaves its lock file, unlocked"


def test_a_released_lock_leaves_no_file(name: str, path: str) -> None:
    lock = Lock(name)
    assert os.stat(path).st_mode & 0o777 == 0o600
    lock.release()
    lock.release()
    assert not os.path.exists(path)


@pytest.mark.processes
def test_a_lock_survives_children_that_end(name: str) -> None:
    """A flock would be lost, or kept by the child."""
    code = """
import os, sys, subprocess
from shm_monitor.segment.lock import Lock
lock = Lock(sys.argv[1])
child = os.fork()
if child == 0:
    lock.release()
    os._exit(0)
os.waitpid(child, 0)
check = "import sys; from shm_monitor.segment.lock import holder_of; print(holder_of(sys.argv[1]))"
held = subprocess.run([sys.executable, "-c", check, sys.argv[1]], capture_output=True, text=True).stdout
assert int(held) == os.getpid(), held
lock.release()
"""
    output_of(code, name)


@pytest.mark.processes
def test_a_child_that_outlives_the_owner_does_not_keep_the_lock(light: LightSamplers, name: str) -> None:
    code = """
import os, sys, time
from shm_monitor.segment.lock import Lock
lock = Lock(sys.argv[1])
child = os.fork()
if child == 0:
    os.close(1)
    os.close(2)
    time.sleep(5)
    os._exit(0)
print(child, flush=True)
os.kill(os.getpid(), 9)
"""
    child = int(run_python(code, name).stdout)
    assert holder_of(name) is None
    light.one(name)
    os.kill(child, signal.SIGKILL)


def test_a_sampler_whose_lock_file_was_removed_does_not_remove_the_next_one(name: str, path: str) -> None:
    first = Lock(name)
    os.unlink(path)
    second = Lock(name)
    first.release()
    assert os.path.exists(path)
    second.release()
    assert not os.path.exists(path)


@pytest.mark.parametrize("kind", ["symlink", "directory"])
def test_what_is_no_file_of_ours_is_not_locked(name: str, path: str, kind: str) -> None:
    if kind == "symlink":
        os.symlink("/dev/null", path)
    else:
        os.mkdir(path)
    try:
        with pytest.raises(UntrustedError):
            Lock(name)
    finally:
        (os.unlink if kind == "symlink" else os.rmdir)(path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to somebody else")
def test_a_lock_file_of_somebody_else_is_not_trusted(name: str, path: str) -> None:
    with open(path, "w") as file:
        os.fchown(file.fileno(), NOBODY, -1)
    with pytest.raises(UntrustedError, match=rf"owner {NOBODY}|Permission denied"):
        Lock(name)


def test_the_error_of_a_holder_in_another_pid_namespace_says_so() -> None:
    assert "another pid namespace" in str(AlreadyRunningError("x", 0))
