"""What runs compiled: the rolling statistics, the decision and the atomic loads; it knows nothing else of the package.

Importing costs numba and compiles nothing: a kernel is compiled, or fetched from numba's cache, when first asked for.
A sampler that must not wait for that (2 to 4 s on a cold cache) calls :func:`compile_in_background` before it makes its
Rolling and Decider: they then run interpreted, with the same results, until the compiler is done.
"""

from threading import Thread

from shm_monitor.kernels import compiled, step
from shm_monitor.kernels.atomics import load_word, should_prune_at, store_word
from shm_monitor.kernels.rolling import Rolling

__all__ = ["Rolling", "compile_in_background", "load_word", "should_prune_at", "store_word"]


def compile_in_background() -> Thread:
    """Compile what one sample needs, in a daemon thread, which is returned."""
    return compiled.compile_in_background(step.ROLL, step.DECIDE)
