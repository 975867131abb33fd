"""What a question costs: no system call, one load in compiled code; and what a reader holds until when."""

from __future__ import annotations

import ctypes
import gc
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shm_monitor.errors import NotFoundError
from shm_monitor.segment import names
from shm_monitor.worker.reader import attach
from tests.support.children import PYTHON
from tests.support.light_sampler import LightSamplers, end
from tests.support.surroundings import child_environment

if TYPE_CHECKING:
    from tests.support.publishing import Bench

STRACE = shutil.which("strace")


def test_close_lets_go_and_the_reader_answers_as_if_its_sampler_were_gone(light: LightSamplers, name: str) -> None:
    light.one(name)
    reader = attach(name, on_stale="always")
    ask = reader.should_prune
    snapshot = reader.snapshot()
    reader.close()
    reader.close()
    assert ask() is True
    assert reader.status().state == "absent"
    assert snapshot.sequence > 0, "what was handed out stays"
    with pytest.raises(NotFoundError, match="closed"):
        reader.snapshot()
    gc.collect()
    assert names.object_name(name) not in Path("/proc/self/maps").read_text()


def test_a_flag_address_stays_mapped_after_close_while_the_reader_exists(light: LightSamplers, name: str) -> None:
    """A compiled loop in another thread may still be asking."""
    light.one(name)
    reader = attach(name)
    address = reader.flag_address
    reader.close()
    assert ctypes.c_uint8.from_address(address).value == 0


def may_trace() -> bool:
    """Say whether strace works here (ptrace may be forbidden in a container)."""
    if STRACE is None:
        return False
    return subprocess.run([STRACE, "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_trace(), reason="strace is not installed, or ptrace not permitted")
def test_asking_makes_no_system_call(light: LightSamplers, name: str, tmp_path: Path) -> None:
    """10^5 questions, between two calls that strace shows."""
    light.one(name, interval_seconds=0.05)
    if not light.by_kernel:
        pytest.skip("without the kernel's help a question asks the clock")
    code = """
import os, sys
from shm_monitor.worker.reader import attach
ask = attach(sys.argv[1]).should_prune
both = attach(sys.argv[1], watch=["memory", "cpu"]).should_prune
ask(); both()
os.path.exists("/before")
for _ in range(100_000):
    ask()
for _ in range(1000):
    both()
os.path.exists("/after")
"""
    trace = tmp_path / "trace"
    command = [str(STRACE), "-f", "-o", str(trace), *PYTHON, "-c", code, name]
    subprocess.run(command, env=child_environment(), check=True, timeout=60)
    lines = trace.read_text().splitlines()
    before = next(at for at, line in enumerate(lines) if '"/before"' in line)
    after = next(at for at, line in enumerate(lines) if '"/after"' in line)
    assert lines[before + 1 : after] == []


def test_a_compiled_loop_sees_another_process_press(light: LightSamplers, name: str) -> None:
    """The load is atomic: LLVM would otherwise read it once and spin for ever."""
    light.one(name, pressed=())
    code = """
import sys, threading, time
from numba import njit
from shm_monitor.kernels import should_prune_at
from shm_monitor.worker.reader import attach

@njit(nogil=True)
def spin(address):
    turns = 0
    while not should_prune_at(address):
        turns += 1
    return turns

reader = attach(sys.argv[1], watch=["cpu"])
address = reader.flag_address
print(should_prune_at(address), flush=True)
turns = spin(address)
while not reader.should_prune():  # the last flag, which says that the sampler lives, comes a moment later
    time.sleep(0.001)
print(turns > 0)
"""
    child = subprocess.Popen(
        [*PYTHON, "-c", code, name], env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "False\n"
        time.sleep(0.5)
        end(attach(name).status().pid or 0)
        time.sleep(0.1)
        assert child.poll() is None, "a dead sampler presses nothing"
        light.one(name, pressed=("cpu",))
        assert child.stdout.readline() == "True\n"
        assert child.wait(60) == 0
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


def make_and_drop(name: str) -> None:
    """Use a reader for everything and drop it."""
    reader = attach(name)
    reader.snapshot()
    reader.should_prune()


def test_dropped_readers_leave_no_mapping(bench: Bench) -> None:
    """The question and its reader know each other, so that the collector must come by."""
    for _ in range(50):
        make_and_drop(bench.name)
    gc.collect()
    with open("/proc/self/maps") as file:
        assert file.read().count(names.object_name(bench.name)) == 1, "the publisher's own"
