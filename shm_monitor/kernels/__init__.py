"""What runs compiled: the rolling statistics, the decision and the atomic loads; it knows nothing else of the package.

Importing costs numba and compiles nothing: a kernel is compiled, or fetched from numba's cache, when first asked for.
A sampler that must not wait for that (2 to 4 s on a cold cache) calls :func:`compiled.compile_in_background` before it
makes its Rolling and Decider: they then run interpreted, with the same results, until the compiler is done.
"""

from shm_monitor.kernels.atomics import load_word, should_prune_at, store_word
from shm_monitor.kernels.rolling import Rolling

__all__ = ["Rolling", "load_word", "should_prune_at", "store_word"]
