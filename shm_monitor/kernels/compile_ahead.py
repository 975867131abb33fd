"""Compile the kernels of a sample for another process: ``python -m shm_monitor.kernels.compile_ahead``.

Their object code, tried here first, comes out over standard output; numba's cache has them, too.

A process of its own, because the compiler takes seconds and 165 MB: here it may fail, or be the first that the kernel
kills for memory, and nobody who matters goes with it. It ends with whoever started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from shm_monitor.kernels.compiled import Kernel
    from shm_monitor.kernels.object_code import ObjectCode

CAP_BYTES = 400 * 2**20  # of private data; it takes 165 MB (numba 0.61, x86-64)
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Compile, or find in the cache, what one sample needs; return 0, also where no cache can be written.

    The pid of whoever waits for it may be given: once that is gone, there is nothing to do.
    """
    _be_the_first_to_go()
    if sys.argv[1:] and os.getppid() != int(sys.argv[1]):
        return 1
    from shm_monitor.kernels import of_one_sample
    from shm_monitor.kernels.compiled import keep_object_code

    keep_object_code()
    for kernel in of_one_sample():
        kernel.compile()
    found = [rehearsed(kernel) for kernel in of_one_sample()]
    sys.stdout.buffer.write(msgspec.msgpack.encode(found))
    return 0


def rehearsed(kernel: Kernel) -> ObjectCode | None:
    """Return the object code of *kernel*; None where, linked here, it does not do what numba's function does."""
    from shm_monitor.errors import MonitorError
    from shm_monitor.kernels.object_code import Native
    from shm_monitor.kernels.rehearsal import OUTCOMES

    code = kernel.object_code()
    if code is None:
        return None
    try:
        native = Native(code)
    except (MonitorError, OSError):
        return None
    outcome = OUTCOMES[kernel.name]
    return code if outcome(native) == outcome(kernel.run) else None


def _be_the_first_to_go() -> None:
    """Lowest priority, first for the OOM killer, a cap on memory, and an end with the parent; whatever is possible.

    Source: prctl(2), proc_pid_oom_score_adj(5), getrlimit(2).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
    with contextlib.suppress(OSError):
        os.nice(19)
    with contextlib.suppress(OSError, ValueError):
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        cap = CAP_BYTES if hard == resource.RLIM_INFINITY else min(CAP_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (cap, hard))


if __name__ == "__main__":
    sys.exit(main())
