"""The sampling thread wakes at once, and nothing else of its scheduling changes."""

from __future__ import annotations

import pytest

from tests.support.children import output_of
from tests.support.marks import needs_robust_futexes
from tests.support.real_sampler import RealSampler, fast

pytestmark = [pytest.mark.processes, needs_robust_futexes]

CHILD = """
import ctypes, os, platform, sys, threading
from shm_monitor.sampler import promptness
from shm_monitor.sampler.promptness import wake_promptly

def slice_ns():
    attributes = ctypes.create_string_buffer(48)
    number = promptness._SYSCALL_NUMBERS[platform.machine()][1]
    assert ctypes.CDLL(None).syscall(number, 0, attributes, 48, 0) == 0
    return int.from_bytes(attributes.raw[24:32], "little")

"""


def needs_slices() -> None:
    """Skip where the kernel knows of no slice of a thread's own (before 6.12)."""
    if output_of(f"{CHILD}\nwake_promptly()\nprint(slice_ns())") != "100000":
        pytest.skip("this kernel gives threads no slice of their own")


def test_the_calling_thread_has_a_short_slice_and_others_do_not() -> None:
    """Neither its threads (collectors) nor a forked child are to preempt the workers."""
    needs_slices()
    code = f"""{CHILD}
before = slice_ns()
wake_promptly()
seen = []
thread = threading.Thread(target=lambda: seen.append(slice_ns()))
thread.start(); thread.join()
child = os.fork()
if child == 0:
    os._exit(slice_ns() == before)
print(slice_ns(), seen == [before], os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert output_of(code).split() == ["100000", "True", "1"]


def test_its_niceness_stays() -> None:
    code = f"""{CHILD}
chosen = os.nice(7)
wake_promptly()
print(os.getpriority(os.PRIO_PROCESS, 0) - chosen, os.sched_getscheduler(0) & 0xff)
"""
    assert output_of(code).split() == ["0", "0"]


def test_a_policy_that_somebody_chose_stays() -> None:
    code = f"""{CHILD}
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
before = slice_ns()
wake_promptly()
print(os.sched_getscheduler(0) == os.SCHED_BATCH, slice_ns() == before)
"""
    assert output_of(code).split() == ["True", "True"]


def test_a_sampler_asks_for_it(name: str) -> None:
    needs_slices()
    with RealSampler(fast(name)) as sampler:
        pid = sampler.report().pid
        code = f"{CHILD.replace('number, 0,', 'number, int(sys.argv[1]),')}\nprint(slice_ns())"
        assert output_of(code, pid) == "100000"
