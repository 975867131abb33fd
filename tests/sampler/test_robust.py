"""The kernel marks the flags when the sampling thread ends, however it ends, and only then."""

from __future__ import annotations

import os

import pytest

from shm_monitor.sampler.robust import WORDS_MAX, RobustList
from shm_monitor.segment.flags import DIED, PRESSED, TID_MASK
from tests.support.children import output_of
from tests.support.marks import needs_robust_futexes

pytestmark = [pytest.mark.processes, needs_robust_futexes]

CHILD = """
import mmap, os, signal, sys, threading, time
from shm_monitor.segment.address import address_of
from shm_monitor.sampler.robust import RobustList

COUNT = 300
shared = mmap.mmap(-1, 8 * COUNT)
words = memoryview(shared).cast("Q")

def own(count=COUNT):
    robust = RobustList(address_of(shared), count, owner=shared)
    for index in range(count):
        # Half of them pressed; verdict bits above, which the kernel must leave.
        words[index] = threading.get_native_id() | (index % 2) << 31 | 3 << 32
    return robust

def show():
    print(sum(word >> 30 & 1 for word in words), sum(word & 0x3fffffff != 0 for word in words))
    print(all(word >> 31 & 1 == index % 2 and word >> 32 == 3 for index, word in enumerate(words)))

def in_child(ending):
    child = os.fork()
    if child == 0:
        robust = own()
        ending(robust)
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize(
    "ending",
    [
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.kill(os.getpid(), signal.SIGTERM)",
        "os.abort()",
        "os._exit(0)",
        "sys.exit(0)",
        "os.execv('/bin/true', ['true'])",
        "(_ for _ in ()).throw(ValueError)",
    ],
)
def test_every_end_marks_every_word_and_keeps_its_verdict(ending: str) -> None:
    said = output_of(f"{CHILD}\nin_child(lambda robust: ({ending}))\nshow()")
    assert said.splitlines()[-2:] == ["300 0", "True"]


def test_the_end_of_an_interpreter_marks_too() -> None:
    """The nodes outlive the clean-up of Python: ctypes arrays would be freed before, and nothing marked."""
    code = f"""{CHILD}
import subprocess
path = "/dev/shm/test-robust-" + str(os.getpid())
fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
os.unlink(path)
os.ftruncate(fd, 8 * COUNT)
shared = mmap.mmap(fd, 8 * COUNT)
words = memoryview(shared).cast("Q")
inner = '''
import mmap, sys, threading
from shm_monitor.segment.address import address_of
from shm_monitor.sampler.robust import RobustList
shared = mmap.mmap(int(sys.argv[1]), 2400)
words = memoryview(shared).cast("Q")
robust = RobustList(address_of(shared), 300, owner=words)
for index in range(300):
    words[index] = threading.get_native_id() | (index % 2) << 31 | 3 << 32
'''
subprocess.run([sys.executable, "-c", inner, str(fd)], pass_fds=[fd], check=True)
show()
"""
    assert output_of(code).splitlines() == ["300 0", "True"]


def test_the_end_of_the_thread_marks_while_the_process_lives_on() -> None:
    said = output_of(
        f"{CHILD}\nthread = threading.Thread(target=own)\nthread.start(); thread.join()\ntime.sleep(0.2)\nshow()"
    )
    assert said.splitlines() == ["300 0", "True"]


def test_the_end_of_another_thread_or_of_a_forked_child_marks_nothing() -> None:
    code = f"""{CHILD}
robust = own()
thread = threading.Thread(target=lambda: None)
thread.start(); thread.join()
child = os.fork()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
show()
"""
    assert output_of(code).splitlines() == ["0 300", "True"]


def test_a_list_that_was_emptied_marks_nothing() -> None:
    said = output_of(f"{CHILD}\nin_child(lambda robust: (robust.forget(), os._exit(0)))\nshow()")
    assert said.splitlines() == ["0 300", "True"]


def test_a_word_that_bears_another_thread_is_left_alone() -> None:
    """After a takeover the flags bear the new sampler's thread."""
    code = f"""{CHILD}
def ending(robust):
    words[7] = words[7] & ~0x3fffffff | 1
    os._exit(0)
in_child(ending)
show()
"""
    assert output_of(code).splitlines()[0] == "299 1"


def test_no_more_words_than_the_kernel_walks() -> None:
    with pytest.raises(ValueError, match=str(WORDS_MAX)):
        RobustList(0, WORDS_MAX + 1, owner=None)


def test_the_bits_are_those_of_the_kernel() -> None:
    """linux/futex.h: FUTEX_WAITERS, FUTEX_OWNER_DIED, FUTEX_TID_MASK."""
    assert (PRESSED, DIED, TID_MASK) == (0x80000000, 0x40000000, 0x3FFFFFFF)
    with open("/proc/sys/kernel/pid_max") as file:
        assert int(file.read()) <= 2**22
    assert os.getpid() < 2**22
