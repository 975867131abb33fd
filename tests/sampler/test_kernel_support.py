"""What a sampler finds out about its kernel at its start, and what it does where the kernel does not help."""

from __future__ import annotations

import pytest

from tests.support.children import output_of
from tests.support.marks import needs_robust_futexes

pytestmark = [pytest.mark.processes, needs_robust_futexes]


def test_the_self_test_proves_both_on_this_kernel_and_leaves_nothing() -> None:
    code = """
import os
from shm_monitor.sampler.kernel_support import tried_support
before = len(os.listdir("/proc/self/fd"))
print([tried_support() for _ in range(20)].count((True, True)), len(os.listdir("/proc/self/fd")) - before)
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no child left")
"""
    assert output_of(code).splitlines() == ["20 0", "no child left"]


REFUSED = """
import errno, os
from shm_monitor.sampler import deadman, kernel_support, robust

def refused(*arguments):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))

"""


@pytest.mark.parametrize(
    ("refusal", "found"),
    [
        ("robust._set_robust_list = refused", (False, False)),
        ("deadman._call = refused", (True, False)),
        ("kernel_support.DeadManSwitch.push_back = lambda *arguments: None", (True, False)),
    ],
    ids=["no robust list", "no timer", "a timer that never goes off"],
)
def test_the_self_test_says_no_where_the_kernel_refuses(refusal: str, found: tuple[bool, bool]) -> None:
    """As under a seccomp filter: the sampler falls back to the clock, and a child that hangs is not left."""
    code = f"""{REFUSED}
{refusal}
kernel_support.PATIENCE_SECONDS = 0.1
print(tuple(kernel_support.tried_support()))
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no child left")
"""
    *_, said, left = output_of(code).splitlines()
    assert (said, left) == (str(found), "no child left")


def test_the_self_test_does_not_fork_a_process_with_threads() -> None:
    code = """
import threading
from shm_monitor.sampler.kernel_support import NO_SUPPORT, tried_support
stop = threading.Event()
threading.Thread(target=stop.wait, daemon=True).start()
print(tried_support() == NO_SUPPORT)
"""
    assert output_of(code) == "True"


def test_no_more_pending_signals_than_the_user_may_have_is_no_support() -> None:
    """Each timer takes one: RLIMIT_SIGPENDING of 0 leaves none. Source: timer_create(2), EAGAIN."""
    code = """
import resource
from shm_monitor.sampler.kernel_support import tried_support
resource.setrlimit(11, (0, 0))  # RLIMIT_SIGPENDING, which the module does not name
print(tuple(tried_support()))
"""
    assert output_of(code).splitlines()[-1] == "(True, False)"
