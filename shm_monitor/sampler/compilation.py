"""Whether a sampler compiles its kernels, and how: in a thread beside the one that samples.

Interpreted, a sample costs a millisecond or two; compiled, a tenth of that. numba takes 110 MB of private memory for as
long as the sampler runs, LLVM's for the most part; 60 MB more once nothing was in its cache and it had to compile.
"""

from __future__ import annotations

import gc
import logging
import math
import sys
import time
from threading import Thread
from typing import Literal

import numpy as np

from shm_monitor.collectors.cgroup.scope import Scope
from shm_monitor.collectors.files import Roots
from shm_monitor.collectors.memory import METRICS, MemoryCollector
from shm_monitor.errors import MonitorError, install_command
from shm_monitor.kernels import of_one_sample
from shm_monitor.kernels.compiled import has_compiler
from shm_monitor.sampler.promptness import wake_promptly
from shm_monitor.units import amount

_log = logging.getLogger("shm_monitor.sampler")

Mode = Literal["auto", "always", "never"]

WORTH_HZ = 5.0  # interpreted samples cost less than 1 % of a CPU below it
WORTH_LIMITS = 24  # as many as 8 GPUs bring
HEADROOM_BYTES = 2**30  # the compiler takes a sixth of that; what is left is for those who are watched
SWITCH_SECONDS = 0.001  # that the sampling thread waits for the interpreter's lock; Python's default is 5 ms


def reason_against(mode: Mode, *, rate_hz: float, limits_count: int, killed_before: bool, headroom_bytes: float) -> str:
    """Return why a sampler should not compile, or nothing.

    Args:
        mode: the setting; ``always`` compiles whatever the rest says.
        rate_hz: samples per second.
        limits_count: limits that are decided in each sample.
        killed_before: the last sampler was killed while memory was short.
        headroom_bytes: what is left to this process itself; NaN where unknown.
    """
    if mode == "never":
        return "COMPILE=never"
    if not has_compiler():
        return f"numba is not installed; try: {install_command('sampler')}"
    if mode == "always":
        return ""
    if rate_hz < WORTH_HZ and limits_count < WORTH_LIMITS:
        return f"{rate_hz:g} Hz and {limits_count} limits are not worth it"
    return _no_room(killed_before=killed_before, headroom_bytes=headroom_bytes)


def _no_room(*, killed_before: bool, headroom_bytes: float) -> str:
    """Return what memory has against it, or nothing."""
    if killed_before:
        return "the last sampler was killed while memory was short"
    if not headroom_bytes >= HEADROOM_BYTES:  # NaN: unknown
        return f"{amount(headroom_bytes, 'bytes')} are left, it takes {amount(HEADROOM_BYTES, 'bytes')}"
    return ""


def begin(mode: Mode, *, rate_hz: float, limits_count: int, killed_before: bool) -> Thread | None:
    """Compile in the background where it is worth it and fits; return the thread that does it, or None."""
    why = reason_against(
        mode,
        rate_hz=rate_hz,
        limits_count=limits_count,
        killed_before=killed_before,
        headroom_bytes=own_headroom_bytes() if mode == "auto" else math.nan,
    )
    if why:
        _log.log(logging.WARNING if mode == "always" else logging.DEBUG, "kernels stay interpreted: %s", why)
        return None
    thread = Thread(target=compile_beside_sampling, name="shm-monitor-compile", daemon=True)
    thread.start()
    return thread


def own_headroom_bytes() -> float:
    """Return what is left at the tightest level of memory above this process, whatever is measured; NaN if unknown."""
    try:
        collector = MemoryCollector(Scope.parse("auto"), Roots())
    except (MonitorError, OSError):
        return math.nan
    readings = np.full(len(collector.metrics), math.nan)
    try:
        collector.collect(readings)
    finally:
        collector.close()
    return float(readings[[metric.field for metric in METRICS].index("available_bytes")])


def compile_beside_sampling() -> None:
    """Compile the kernels of a sample while another thread of this process samples on time.

    At 100 Hz the latest of 600 samples came 4 to 17 ms late while this went on with a core to spare, and 62 ms with 5
    busy threads on 2 cores (bench/bench_sampler.py). What did worse, on those 2 cores: a low priority, for who holds
    the interpreter's lock and gets no CPU stops the samples (nice 19: 1.7 s, SCHED_IDLE: 6.8 s); the usual time slice
    (231 ms). With a core to spare: collections of garbage, each of which looks at all that numba has made (90 ms).
    """
    wake_promptly()
    switch_seconds = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.disable()
    began = time.monotonic()
    try:
        for kernel in of_one_sample():
            kernel.compile()
    except Exception as error:  # noqa: BLE001 numba cannot be loaded: the interpreted kernels do the same, slower
        _log.warning("kernels stay interpreted: %s: %s", type(error).__name__, error)
    else:
        _log.info("kernels compiled in %.1f s", time.monotonic() - began)
    finally:
        gc.freeze()  # all of it stays: no later collection looks at it
        gc.enable()
        sys.setswitchinterval(switch_seconds)
