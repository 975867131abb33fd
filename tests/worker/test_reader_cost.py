"""What a question costs: no system call, one load in compiled code; and what a reader holds until when."""

from __future__ import annotations

import ctypes
import gc
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shm_monitor.errors import NotFoundError
from shm_monitor.schema import Level
from shm_monitor.segment import names
from shm_monitor.segment.flags import DIED_BYTE
from shm_monitor.worker.attaching import attach
from tests.support.children import PYTHON, output_of
from tests.support.light_sampler import LightSamplers, end
from tests.support.surroundings import child_environment
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from shm_monitor.worker.reader import Reader
    from tests.support.publishing import Bench

pytestmark = pytest.mark.processes

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


def test_a_flag_address_stays_mapped_after_close(light: LightSamplers, name: str) -> None:
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
from shm_monitor.worker.attaching import attach
ask = attach(sys.argv[1]).should_prune
both = attach(sys.argv[1], watch=["memory", "cpu"]).should_prune
cpu = attach(sys.argv[1], watch=["cpu"])
ask(); both(); cpu.should_prune()
assert cpu.level() == 2
os.path.exists("/before")
for _ in range(100_000):
    ask()
for _ in range(1000):
    both(); cpu.should_prune(); cpu.level(); cpu.shed_fraction(); cpu.reasons()
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
from shm_monitor.worker.attaching import attach

@njit("int64(int64)", nogil=True)  # compiled before anybody waits for it
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


def mappings_of(name: str) -> int:
    """Return how many mappings of segments of *name* this process has, those without a name included."""
    with open("/proc/self/maps") as file:
        return file.read().count(names.object_name(name))


def test_dropped_readers_leave_no_mapping(bench: Bench) -> None:
    """At once: nothing of a reader refers back to it, so that no collector must come by."""
    gc.disable()
    try:
        for _ in range(50):
            make_and_drop(bench.name)
        assert mappings_of(bench.name) == 1, "the publisher's own"
    finally:
        gc.enable()


def follows(reader: Reader, pid: int) -> bool:
    """Say whether *reader* reads from the sampler *pid*."""
    return reader.status().pid == pid


def test_readers_that_wait_and_hand_out_addresses_hold_the_segment_of_now_alone(
    light: LightSamplers, name: str
) -> None:
    """Over 20 layout changes; a container's whole shared memory may be 64 MB."""
    started = light.one(name, metric_count=3)
    readers = [attach(name, watch=watch) for watch in (None, ["cpu"], ["cpu", "memory"])]
    for change in range(20):
        end(started.pid)
        started = light.one(name, metric_count=4 + change)
        for reader in readers:
            wait_until(partial(follows, reader, started.pid))
            reader.wait(timeout=0.001)
            assert reader.flag_address
            reader.snapshot()
        assert mappings_of(name) == len(readers)
    for reader in readers:
        reader.close()


def test_an_address_keeps_its_segment_mapped_without_its_reader(light: LightSamplers, name: str) -> None:
    first = light.one(name, metric_count=3)
    addresses = [attach(name, watch=["memory"]).flag_address]
    end(first.pid)
    light.one(name, metric_count=4)
    addresses.append(attach(name, watch=["memory"]).flag_address)

    assert [ctypes.c_uint8.from_address(address).value & DIED_BYTE for address in addresses] == [DIED_BYTE, 0]
    assert mappings_of(name) == 2
    addresses.clear()
    assert mappings_of(name) == 0


def test_a_compiled_loop_over_the_address_of_a_temporary_reader_does_not_crash(bench: Bench) -> None:
    """As the README prints it: nobody keeps the reader."""
    code = """
import sys
from numba import njit
import shm_monitor as sm
from shm_monitor.kernels import should_prune_at

@njit(nogil=True)
def loop(address, turns):
    pressed = 0
    for _ in range(turns):
        pressed += should_prune_at(address)
    return pressed

print(loop(sm.attach(sys.argv[1]).flag_address, 10_000_000))
"""
    bench.publish(Level.PRUNE)
    assert output_of(code, bench.name) == "10000000"


def test_what_attaches_loads_no_threads_and_no_tables(light: LightSamplers, name: str) -> None:
    """Each of them takes milliseconds, which a worker that only asks should_prune() never gets back."""
    light.one(name)
    code = (
        "import sys, shm_monitor as sm; before = {'threading', 'weakref', 'enum', 'json', 'logging', 'typing'}\n"
        "sm.attach(sys.argv[1]).should_prune()\n"
        "print(sorted(before & sys.modules.keys()))"
    )

    assert output_of(code, name) == "[]"
