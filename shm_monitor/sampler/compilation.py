"""Whether a sampler compiles its kernels, and how: a child of low priority does it, and may die of it.

Interpreted, a sample costs a millisecond or two; compiled, a tenth of that. The compiler takes 165 MB while it works,
so it never runs in the sampler, which takes the object code from the child and no memory worth mentioning. Where that
cannot be linked, numba loads its cache into the sampler: 110 MB of private memory, LLVM's for the most part.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
from threading import Thread
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from shm_monitor.collectors.cgroup.scope import Scope
from shm_monitor.collectors.files import Roots
from shm_monitor.collectors.memory import METRICS, MemoryCollector
from shm_monitor.errors import MonitorError
from shm_monitor.kernels import of_one_sample
from shm_monitor.kernels.compiled import has_compiler
from shm_monitor.kernels.object_code import Native, ObjectCode
from shm_monitor.units import amount

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("shm_monitor.sampler")

Mode = Literal["auto", "always", "never"]

WORTH_HZ = 5.0  # interpreted samples cost less than 1 % of a CPU below it
WORTH_LIMITS = 24  # as many as 8 GPUs bring
HEADROOM_BYTES = 512 * 2**20  # of which the compiler takes 165 MB, and a sampler that has to load numba keeps 110
CHILD_SECONDS = 300.0  # it compiles for 4 s at full speed, and its priority is the lowest


def leave_interpreted() -> None:
    """Have the kernels of a sample run interpreted until ``begin`` has others; call it before they are used."""
    for kernel in of_one_sample():
        kernel.is_compiling = True


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
        return 'numba is not installed; try: pip install "shm-monitor[sampler]"'
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
    """Compile in the background where it is worth it and fits; return the thread that waits for that, or None."""

    def against() -> str:
        headroom_bytes = own_headroom_bytes() if mode == "auto" else math.nan
        return reason_against(
            mode,
            rate_hz=rate_hz,
            limits_count=limits_count,
            killed_before=killed_before,
            headroom_bytes=headroom_bytes,
        )

    why = against()
    if why:
        _log.log(logging.WARNING if mode == "always" else logging.DEBUG, "kernels stay interpreted: %s", why)
        return None
    thread = Thread(target=_compile, args=(against,), name="shm-monitor-compile", daemon=True)
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


def _compile(against: Callable[[], str]) -> None:
    """Have a child compile, and link what it hands over; else load numba's cache, if there still is room for that."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "shm_monitor.kernels.compile_ahead", str(os.getpid())],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CHILD_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        _log.warning("kernels stay interpreted: the compiler did not come to an end: %s", error)
        return
    if done.returncode not in _COMPILED:
        last = done.stderr.decode(errors="backslashreplace").strip().rpartition("\n")[2]
        _log.warning("kernels stay interpreted: the compiler ended with status %d: %s", done.returncode, last)
        return
    if link(done.stdout):
        return
    why = against()
    if why:
        _log.info("kernels stay interpreted: %s", why)
    elif not all(kernel.load() for kernel in of_one_sample()):
        _log.warning("kernels stay interpreted: numba has no cache here; try: shm-monitor doctor")


# It is done, or has compiled and then failed at its rehearsal of the object code.
_COMPILED = (0, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL)


def link(made: bytes) -> bool:
    """Have the kernels of a sample run the object code in *made*; return whether that is possible here, for all."""
    try:
        codes = msgspec.msgpack.decode(made, type=list[ObjectCode | None])
        natives = [Native(code) for code in codes if code is not None]
    except (msgspec.DecodeError, MonitorError, OSError):
        return False
    if len(natives) != len(of_one_sample()):
        return False
    for kernel, native in zip(of_one_sample(), natives, strict=True):
        kernel.adopt(native)
    return True
