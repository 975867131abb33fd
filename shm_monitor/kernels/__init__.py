"""What runs compiled: the rolling statistics, the decision and the atomic loads; it knows nothing else of the package.

Importing costs numpy and no numba: a kernel runs interpreted until somebody has it compiled, or fetched from numba's
cache, with the same results. The atomics are numba's own, so asking for one of them imports it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from shm_monitor.errors import MissingDependencyError

try:
    from shm_monitor.kernels import compiled, decide, roll
    from shm_monitor.kernels.roll import Rolling
except ModuleNotFoundError as error:
    raise MissingDependencyError.of("shm_monitor.kernels", error) from error

if TYPE_CHECKING:
    from shm_monitor.kernels.atomics import load_word, should_prune_at, store_word

__all__ = ["Rolling", "load_word", "of_one_sample", "should_prune_at", "store_word"]


def of_one_sample() -> tuple[compiled.Kernel, ...]:
    """Return the kernels that one sample needs."""
    return roll.ROLL, decide.DECIDE


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        atomics = importlib.import_module("shm_monitor.kernels.atomics")
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of(f"shm_monitor.kernels.{name}", error) from error
    found = globals()[name] = getattr(atomics, name)
    return found
