"""The verdict words: one aligned u64 that says pressed, dead, why, and that its low half is a robust futex.

::

    bits 0-29  thread id of the sampling thread    low half: a robust futex word. When that thread ends, however
    bit  30    DIED     set by the KERNEL          it ends, the kernel clears the id, sets bit 30 and keeps bit 31.
    bit  31    PRESSED  set by the sampler
    bits 32-33 level, 34-49 reasons, 50 injected   stored together with the low half, in one 8-byte store

Thread ids stay below 2**22, so byte 3 (bits 24-31) is zero exactly when the sampler lives and nothing presses.
Source: futex(2), set_robust_list(2), Documentation/locking/robust-futex-ABI.rst.
"""

from __future__ import annotations

from shm_monitor.schema import Level

TID_MASK = 0x3FFF_FFFF
DIED = 1 << 30
PRESSED = 1 << 31
HOT_BYTE = 3  # of the eight, little-endian
DIED_BYTE = DIED >> 24
PRESSED_BYTE = PRESSED >> 24

LEVEL_SHIFT = 32
REASONS_SHIFT = 34
REASONS_MASK = 0xFFFF
INJECTED = 1 << 50  # the sample has false readings on purpose


def verdict_word(level: int, reasons: int) -> int:
    """Return the high half of a flag for *level* and the bits of *reasons*; no thread id, not pressed."""
    return level << LEVEL_SHIFT | (reasons & REASONS_MASK) << REASONS_SHIFT


def flag_word(verdict: int, thread_id: int) -> int:
    """Return the whole flag of a live sampler: *verdict*, pressed from ``Level.PRUNE`` on, owned by *thread_id*."""
    return verdict | thread_id | (PRESSED if level_of(verdict) >= Level.PRUNE else 0)


def level_of(word: int) -> Level:
    """Return the level in *word*."""
    return Level(word >> LEVEL_SHIFT & 3)


def reasons_of(word: int) -> int:
    """Return the bits of the reasons in *word*."""
    return word >> REASONS_SHIFT & REASONS_MASK


def ended_word(word: int) -> int:
    """Return *word* as the kernel would leave it at the owner's death: verdict kept, owner gone."""
    return word & ~TID_MASK | DIED
