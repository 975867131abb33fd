"""How much memory a piece of work took at its peak, as the kernel keeps it: VmHWM of this process.

Source: proc_pid_status(5); writing 5 to /proc/self/clear_refs resets the peak, proc_pid_clear_refs(5).
"""

from __future__ import annotations

from shm_monitor.light import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Memory(NamedTuple):
    """Resident memory of this process, in bytes: now, and at its peak since the last reset."""

    now: int
    peak: int


def read_memory() -> Memory | None:
    """Return what this process has resident; None where the system does not say. 20 us."""
    try:
        with open("/proc/self/status", "rb") as file:
            text = file.read()
        return Memory(_field(text, b"VmRSS:"), _field(text, b"VmHWM:"))
    except (OSError, ValueError, IndexError):
        return None


def reset_peak() -> bool:
    """Make the peak what is resident now, for the whole process; return whether the system lets us."""
    try:
        with open("/proc/self/clear_refs", "wb", buffering=0) as file:
            file.write(b"5")
    except OSError:
        return False
    return True


def _field(text: bytes, name: bytes) -> int:
    return int(text[text.index(name) + len(name) :].split(None, 1)[0]) * 1024


class PeakMeter:
    """Tells what each piece of work took, also from an allocator that keeps its pages for the next one.

    Where the pages go back between two pieces, the peak above the beginning is what a piece takes. Where they are kept,
    a larger piece takes what is kept and what it adds, and one of the same size takes nothing new and teaches nothing.
    What was kept shows only when the next piece begins. Measured otherwise: the estimate fell from 3,000 bytes per row
    to 715, because each peak was compared with a beginning that had the kept pages in it.
    """

    def __init__(self, read: Callable[[], Memory | None] = read_memory, reset: Callable[[], bool] = reset_peak) -> None:
        """Ask *read* and *reset*; a test gives its own."""
        self._read = read
        self._reset = reset
        self._began = 0
        self._last: tuple[int, int, int] | None = None  # units, where it began, how far it rose
        self._kept_bytes = self._kept_units = 0

    def begin(self) -> tuple[int, int] | None:
        """Begin a piece; return (units, bytes) as the piece before teaches them, None where it teaches nothing."""
        self._reset()
        memory = self._read()
        self._began = memory.now if memory else 0
        last, self._last = self._last, None
        return self._judged(*last) if memory and last else None

    def end(self, units: int) -> int:
        """End a piece of *units*; return the bytes that it rose above its beginning, 0 where that is unknown."""
        memory = self._read()
        if memory is None or not self._began:
            return 0
        rise = max(memory.peak - self._began, 0)
        self._last = (units, self._began, rise)
        return rise

    def _judged(self, units: int, began: int, rise: int) -> tuple[int, int] | None:
        """Return what a piece took, now that it shows what was kept of it; a slow leak counts as neither."""
        if units <= self._kept_units and rise < self._kept_bytes / 4:
            return None
        before, kept = self._kept_bytes, self._began - began
        if kept > rise / 2:
            self._kept_bytes += kept
            self._kept_units = max(units, self._kept_units)
        elif kept < -before / 2:
            self._kept_bytes = self._kept_units = 0  # the allocator has given its pages back
        return units, rise + before
