"""Kernels: plain Python functions until numba has compiled them, with the same results.

Nothing here imports numba before something is compiled: an interpreted sampler never pays for it (110 MB of private
memory, most of it LLVM's relocations). So signatures are texts, in numba's own words.

Numba's file cache sees changes of the file that defines a kernel and of no other. So a kernel calls functions of its
own file alone. The numbers that it takes from elsewhere are the format of the segment: who changes one of those touches
``decide.py``, too. An installation writes all files anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from threading import Lock
from typing import Any, TypeVar

_log = logging.getLogger("shm_monitor.kernels")

Function = TypeVar("Function", bound=Callable[..., Any])

# error_model numpy: a division by zero gives inf or NaN as in numpy, and leaves no branches to compile.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}

_lock = Lock()
_unregistered: list[Callable[..., Any]] = []  # what kernels call and numba does not know yet


def callable_from_kernels(function: Function) -> Function:
    """Let kernels of the same file call *function*, as ``numba.extending.register_jitable`` does, without numba."""
    _unregistered.append(function)
    return function


def read_only(scalar: str, dimensions: int, layout: str = "A") -> str:
    """Return the type of an array that is only read: strided views (A) and read-only maps convert to it.

    Args:
        scalar: ``float64`` and so on.
        dimensions: of the array.
        layout: ``A`` any, ``C`` contiguous.
    """
    return f"Array({scalar}, {dimensions}, {layout!r}, True)"


class Kernel:
    """One function and the one signature that it is compiled for.

    Attributes:
        run: what to call: the interpreted function, and the compiled one once ``compile`` is done.
        is_compiled: True from then on.
    """

    def __init__(self, function: Callable[..., Any], signature: str) -> None:
        """Prepare *function*, interpreted; *signature* as numba writes it, ``void(uint64[::1], float64)``."""
        self.run = self._function = function
        self._signature = signature
        self.is_compiled = False

    def compile(self) -> None:
        """Compile, or fetch from numba's cache; return at once if that has happened or numba is not installed."""
        with _lock:
            if not self.is_compiled and has_compiler():
                self.run = _compiled(self._function, self._signature)
                self.is_compiled = True


def has_compiler() -> bool:
    """Say whether numba is installed; without it everything runs interpreted."""
    return find_spec("numba") is not None


def _compiled(function: Callable[..., Any], signature: str) -> Callable[..., Any]:
    """Return *function* compiled for *signature*, through numba's file cache where that works.

    Where no directory can be written, as in a read-only install without a home, numba raises a RuntimeError; a full
    disk is an OSError, and a damaged file whatever unpickling raises.
    """
    from numba import njit
    from numba.extending import register_jitable

    while _unregistered:
        register_jitable(_unregistered.pop())
    try:
        return njit(signature, cache=True, **_OPTIONS)(function)
    except Exception as error:  # noqa: BLE001 the next line raises an error of the function itself again
        _log.info("compiling %s without numba's cache, which fails: %s", function.__name__, error)
        return njit(signature, **_OPTIONS)(function)
