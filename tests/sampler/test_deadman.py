"""The kernel ends a process whose loop no longer turns, whatever keeps it, and no other."""

from __future__ import annotations

import signal

import pytest

from tests.support.children import output_of, run_python
from tests.support.marks import needs_robust_futexes

pytestmark = [pytest.mark.processes, needs_robust_futexes]

SWITCH = """
import ctypes, os, signal, threading, time
from shm_monitor.sampler.deadman import DeadManSwitch

switch = DeadManSwitch()

def push_back(seconds):
    switch.push_back(time.monotonic_ns() + int(seconds * 1e9))

"""


@pytest.mark.parametrize(
    "hang",
    [
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "ctypes.PyDLL(None).pause()",
        "ctypes.CDLL(None).pause()",
        "(signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()), signal.pause())",
        "[None for _ in iter(int, 1)]",
    ],
    ids=["stopped", "interpreter lock held in C", "sleeping in C", "every signal blocked", "a loop without an end"],
)
def test_a_process_that_hangs_is_killed(hang: str) -> None:
    assert run_python(f"{SWITCH}\npush_back(0.05)\n{hang}").returncode == -signal.SIGKILL


def test_a_loop_that_turns_is_left_alone_and_one_that_ends_too() -> None:
    """Thirty turns, each within the time, take longer than the time."""
    code = f"""{SWITCH}
push_back(20.0)
for _ in range(30):
    push_back(20.0)
    push_back(19.0)
switch.remove()
time.sleep(0.01)
print("alive")
"""
    assert output_of(code) == "alive"


def test_pushing_back_moves_the_end_and_does_not_add_another() -> None:
    code = f"""{SWITCH}
push_back(0.5)
push_back(3600.0)
time.sleep(0.7)
print("alive")
"""
    assert output_of(code) == "alive"


def test_a_removed_switch_lets_the_process_live() -> None:
    code = f"""{SWITCH}
push_back(0.3)
switch.remove()
time.sleep(0.5)
print("alive")
"""
    assert output_of(code) == "alive"


def test_neither_a_forked_child_nor_what_it_executes_inherits_the_switch() -> None:
    """A worker that a sampler's process would fork must not be killed for it."""
    code = f"""{SWITCH}
import subprocess
push_back(0.3)
child = os.fork()
if child == 0:
    time.sleep(0.6)
    os._exit(7)
switch.remove()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
push_back = DeadManSwitch().push_back
push_back(time.monotonic_ns() + 300_000_000)
os.execv("/bin/sh", ["sh", "-c", "sleep 0.6; echo alive"])
"""
    assert output_of(code).split() == ["7", "alive"]
