"""Kernels that run interpreted until numba has compiled them, through its cache where there is one.

Nothing here imports numba before something is compiled: a small sampler runs its kernels interpreted and never pays for
it (65 MB of private memory, most of it LLVM's relocations). So signatures are texts, in numba's own words.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from importlib.util import find_spec
from threading import Lock, Thread
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from shm_monitor.kernels.object_code import ObjectCode

_log = logging.getLogger("shm_monitor.kernels")

Function = TypeVar("Function", bound=Callable[..., Any])

# error_model numpy: a division by zero gives inf or NaN as in numpy, and leaves no branches to compile.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}

_callable: list[Callable[..., Any]] = []  # what kernels call, until numba hears of it
_inlined: set[Callable[..., Any]] = set()  # the same, for ever


def callable_from_kernels(function: Function) -> Function:
    """Let kernels call *function* when they are compiled, as ``numba.extending.register_jitable``, without numba."""
    _callable.append(function)
    _inlined.add(function)
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
    """One function and the one signature it is compiled for.

    Attributes:
        run: what to call; the interpreted function until ``compile`` is done, with the same results.
        is_compiling: true from the moment that somebody has taken it upon himself to compile it, or not to.
        name: of the function.
    """

    def __init__(self, function: Callable[..., Any], signature: str) -> None:
        """Prepare *function*, interpreted; *signature* as numba writes it, ``void(uint64[::1], float64)``."""
        self.run = self._function = function
        self.name = function.__name__
        self._signature = signature
        self.is_compiling = False
        self._lock = Lock()

    @property
    def is_compiled(self) -> bool:
        """True when ``run`` is the compiled function."""
        return self.run is not self._function

    def compile(self) -> None:
        """Compile, or fetch from the cache; returns at once when that has happened, or where there is no numba."""
        self.is_compiling = True
        with self._lock:
            if not self.is_compiled and has_compiler():
                self.run = compiled(self._function, self._signature)

    def load(self) -> bool:
        """Fetch from numba's cache, and never compile; return whether it was there. Imports numba."""
        self.is_compiling = True
        with self._lock:
            if not self.is_compiled:
                found = _from_cache(self._function, self._signature)
                self.run = found or self.run
        return self.is_compiled

    def object_code(self) -> ObjectCode | None:
        """Return what the compiler made, once compiled; None where numba keeps it elsewhere than it did."""
        from shm_monitor.kernels.object_code import ObjectCode

        dispatcher: Any = self.run
        try:
            (signature,) = dispatcher.signatures
            made = dispatcher.overloads[signature]
            elf = _from_cache_file.get(made.library) or made.library._get_compiled_object()  # no public way to it
            return ObjectCode(made.fndesc.llvm_func_name, str(made.signature.return_type), elf)
        except Exception:  # noqa: BLE001 whatever another numba, or none, makes of that
            return None

    def adopt(self, run: Callable[..., Any]) -> None:
        """Run *run* from now on, which does the same as the compiled function."""
        self.run = run


_from_cache_file: dict[Any, bytes] = {}  # by numba's library, for Kernel.object_code


def keep_object_code() -> None:
    """Keep the object code of what numba loads from its cache, which it drops as soon as LLVM has it. Imports numba."""
    from numba.core import codegen

    library: Any = getattr(codegen, "JITCodeLibrary", None)
    take = getattr(library, "_set_compiled_object", None)
    if take is None:
        return

    def keep(self: Any, elf: bytes) -> None:
        _from_cache_file[self] = elf
        take(self, elf)

    library._set_compiled_object = keep


def has_compiler() -> bool:
    """Say whether numba is installed; without it everything runs interpreted."""
    return find_spec("numba") is not None


def compiled(function: Callable[..., Any], signature: str) -> Callable[..., Any]:
    """Return *function* compiled for *signature*. Imports numba.

    The signature is given so that the compilation, and any trouble with the cache, happens here and only here:
    no writable directory (a read-only install without a home) is a RuntimeError of numba, a full disk an OSError,
    a damaged cache file whatever unpickling raises.
    """
    from numba import njit

    _tell_numba_what_is_called()
    try:
        return njit(signature, cache=True, **_OPTIONS)(stamped(function))
    except Exception:  # noqa: BLE001 an error of the function itself is raised again by the next line
        return njit(signature, **_OPTIONS)(function)


def stamped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return *function* under a name that changes with the files of all that it calls, if they are not its own.

    Numba's cache sees changes of the function's own file only, and finds it by the name. A constant is seen to
    change if something in its file is called, too.
    """
    files = sorted({one.__code__.co_filename for one in _called_by(function)} - {function.__code__.co_filename})
    if not files:
        return function
    stamps = [(file, os.stat(file).st_mtime_ns, os.stat(file).st_size) for file in files]
    stamp = hashlib.sha256(repr(stamps).encode(errors="surrogateescape")).hexdigest()[:16]
    copy = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    copy.__qualname__ = f"{function.__qualname__}_{stamp}"
    copy.__module__ = function.__module__
    return copy


def _called_by(function: Callable[..., Any]) -> set[FunctionType]:
    """Return what *function* calls of ``callable_from_kernels``, and what that calls."""
    found: set[FunctionType] = set()
    ahead = [function]
    while ahead:
        one = ahead.pop()
        called = (one.__globals__.get(name) for name in one.__code__.co_names)
        new = {each for each in called if isinstance(each, FunctionType) and each in _inlined} - found
        found |= new
        ahead += new
    return found


class _NotInCacheError(Exception):
    """Numba was about to compile."""


def _from_cache(function: Callable[..., Any], signature: str) -> Callable[..., Any] | None:
    """Return *function* as numba's cache has it; None where it is not there, or numba has no such inside any more."""
    from numba import njit

    def refuse(*_: object) -> None:
        raise _NotInCacheError

    _tell_numba_what_is_called()
    try:
        dispatcher: Any = njit(cache=True, **_OPTIONS)(stamped(function))
        dispatcher._compiler.compile = refuse  # there is no public way to have the cache alone
        dispatcher.compile(signature)
        dispatcher.disable_compile()
    except Exception:  # noqa: BLE001 no place for a cache, a damaged file: whatever unpickling raises
        return None
    return cast("Callable[..., Any]", dispatcher)


def _tell_numba_what_is_called() -> None:
    from numba.extending import register_jitable

    with _callable_lock:
        while _callable:
            register_jitable(_callable.pop())


_callable_lock = Lock()


def compile_in_background(*kernels: Kernel) -> Thread:
    """Compile *kernels* one after the other in a daemon thread, which is returned; they run interpreted meanwhile."""

    for kernel in kernels:
        kernel.is_compiling = True

    def work() -> None:
        try:
            for kernel in kernels:
                kernel.compile()
        except Exception as error:  # noqa: BLE001 numba cannot be loaded: the interpreted kernels do the same, slower
            _log.warning("the kernels stay interpreted: %s: %s", type(error).__name__, error)

    thread = Thread(target=work, name="shm-monitor-compile", daemon=True)
    thread.start()
    return thread
