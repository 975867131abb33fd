"""Kernels that run interpreted until numba has compiled them, through its cache where there is one."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Thread
from typing import Any

from numba import njit
from numba.core.typing.templates import Signature


class Kernel:
    """One function and the one signature it is compiled for.

    Attributes:
        run: what to call; the interpreted function until :meth:`compile` is done, with the same results.
        is_compiling: true from the moment that somebody has begun to compile it.
    """

    def __init__(self, function: Callable[..., Any], signature: Signature) -> None:
        self.run = self._function = function
        self._signature = signature
        self.is_compiling = False
        self._lock = Lock()

    @property
    def is_compiled(self) -> bool:
        """True when :attr:`run` is the compiled function."""
        return self.run is not self._function

    def compile(self) -> None:
        """Compile, or fetch from the cache; returns at once when that has happened."""
        self.is_compiling = True
        with self._lock:
            if not self.is_compiled:
                self.run = compiled(self._function, self._signature)


def compiled(function: Callable[..., Any], signature: Signature) -> Callable[..., Any]:
    """Return *function* compiled for *signature*.

    The signature is given so that the compilation, and any trouble with the cache, happens here and only here:
    no writable directory (a read-only install without a home) is a RuntimeError of numba, a full disk an OSError,
    a damaged cache file whatever unpickling raises.
    """
    # error_model numpy: a division by zero gives inf or NaN as in numpy, and leaves no branches to compile.
    try:
        return njit(signature, cache=True, nogil=True, error_model="numpy")(function)
    except Exception:  # noqa: BLE001 an error of the function itself is raised again by the next line
        return njit(signature, nogil=True, error_model="numpy")(function)


def compile_in_background(*kernels: Kernel) -> Thread:
    """Compile *kernels* one after the other in a daemon thread, which is returned; they run interpreted meanwhile."""

    for kernel in kernels:
        kernel.is_compiling = True

    def work() -> None:
        for kernel in kernels:
            kernel.compile()

    thread = Thread(target=work, name="shm-monitor-compile", daemon=True)
    thread.start()
    return thread
