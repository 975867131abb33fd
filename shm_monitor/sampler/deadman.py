"""Have the kernel end this process when its loop no longer turns: a timer that sends SIGKILL unless it is pushed back.

A supervisor can do as much only while it runs itself: stopped together with its sampler (Ctrl-Z), or kept from the
interpreter lock by a long call in C, it left readers with a flag that nobody wrote any more (9.2 s tried). The timer
ends a process that is stopped, holds the interpreter lock in C or blocks every signal, to 2 ms; the robust list then
marks its flags. Suspend does not count, a debugger and a frozen cgroup do: ``SHM_MONITOR_FORCE_CLOCK=1`` does without.
Source: timer_create(2), timer_settime(2); the structures are those of the kernel, which needs no librt.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal

_NUMBERS_X86_64 = (222, 223, 226)  # timer_create, timer_settime, timer_delete
_NUMBERS_GENERIC = (107, 110, 111)
_SYSCALL_NUMBERS = {"x86_64": _NUMBERS_X86_64, "aarch64": _NUMBERS_GENERIC, "riscv64": _NUMBERS_GENERIC}
_CLOCK_MONOTONIC = 1  # not CLOCK_BOOTTIME: time asleep is no hang
_SIGEV_SIGNAL = 0
_TIMER_ABSTIME = 1


class _Sigevent(ctypes.Structure):
    """struct sigevent, 64 bytes."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("padding", ctypes.c_int * 12),
    )


class _Itimerspec(ctypes.Structure):
    """struct itimerspec; the interval is that of a timer that goes off again and again."""

    _fields_ = (
        ("interval_seconds", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    )


class DeadManSwitch:
    """One such timer. A forked child does not inherit it, and it ends with exec."""

    def __init__(self) -> None:
        """Make it; it is armed by the first ``push_back``.

        Raises:
            OSError: this kernel has no such timer, or refuses one (seccomp, RLIMIT_SIGPENDING).
        """
        numbers = _SYSCALL_NUMBERS.get(platform.machine())
        if numbers is None or platform.system() != "Linux":
            raise OSError(f"no timers known on {platform.system()} {platform.machine()}")
        self._create, self._settime, self._delete = map(ctypes.c_long, numbers)
        self._spec = _Itimerspec()
        self._spec_pointer = ctypes.byref(self._spec)
        event = _Sigevent(signal=signal.SIGKILL, notify=_SIGEV_SIGNAL)
        timer = ctypes.c_int()
        _call(self._create, ctypes.c_int(_CLOCK_MONOTONIC), ctypes.byref(event), ctypes.byref(timer))
        self._timer = timer

    def push_back(self, until_mono_ns: int) -> None:
        """Let this process be killed at *until_mono_ns* of the monotonic clock, no longer when it was to be. 3 us."""
        self._spec.seconds, self._spec.nanoseconds = divmod(until_mono_ns, 10**9)
        _call(self._settime, self._timer, _ABSOLUTE, self._spec_pointer, None)

    def remove(self) -> None:
        """Let this process live. Once."""
        _call(self._delete, self._timer)


def _call(number: ctypes.c_long, *arguments: object) -> None:
    if _syscall(number, *arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), "timer")


_ABSOLUTE = ctypes.c_int(_TIMER_ABSTIME)
_syscall = ctypes.CDLL(None, use_errno=True).syscall
