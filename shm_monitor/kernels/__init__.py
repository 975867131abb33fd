"""What runs compiled: the rolling statistics, the decision and the atomic loads; it knows nothing else of the package.

Importing costs numpy and no numba: a kernel is compiled, or fetched from numba's cache, when first asked for, and runs
interpreted before, with the same results. The atomics are numba's own, so asking for one of them imports it.
"""

import importlib
from threading import Thread
from typing import TYPE_CHECKING, Any

from shm_monitor.kernels import compiled, decide, roll
from shm_monitor.kernels.roll import Rolling

if TYPE_CHECKING:
    from shm_monitor.kernels.atomics import load_word, should_prune_at, store_word

__all__ = ["Rolling", "compile_in_background", "load_word", "should_prune_at", "store_word"]


def compile_in_background() -> Thread:
    """Compile what one sample needs, in a daemon thread, which is returned."""
    return compiled.compile_in_background(roll.ROLL, decide.DECIDE)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module("shm_monitor.kernels.atomics"), name)
    return found
