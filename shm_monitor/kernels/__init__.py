"""What runs compiled: the rolling statistics, the decision and the atomic loads; it knows nothing else of the package.

Importing costs numba and compiles nothing: a kernel is compiled, or fetched from numba's cache, when first asked for.
"""

from shm_monitor.kernels.atomics import load_word, should_prune_at, store_word
from shm_monitor.kernels.rolling import Rolling

__all__ = ["Rolling", "load_word", "should_prune_at", "store_word"]
