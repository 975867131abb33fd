"""Fill numba's cache with the kernels of a sample: ``python -m shm_monitor.kernels.compile_ahead``.

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

CAP_BYTES = 400 * 2**20  # of private data; it takes 165 MB (numba 0.61, x86-64)
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Compile, or find in the cache, what one sample needs; return 0, also where no cache can be written."""
    parent = os.getppid()
    _be_the_first_to_go()
    if os.getppid() != parent:
        return 1
    from shm_monitor.kernels import of_one_sample

    for kernel in of_one_sample():
        kernel.compile()
    return 0


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
