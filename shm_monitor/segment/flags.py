"""The verdict words: one aligned u64 that says pressed, dead, why, how much, and that its low half is a robust futex.

::

    bits 0-29  thread id of the sampling thread    low half: a robust futex word. When that thread ends, however
    bit  30    DIED     set by the KERNEL          it ends, the kernel clears the id, sets bit 30 and keeps bit 31.
    bit  31    PRESSED  set by the sampler
    bits 32-33 level, 34-49 reasons, 50 injected   stored together with the low half, in one 8-byte store
    bits 51-62 shed    how much to shed, in 1/4095: 0 at the target or below, 4095 at the capacity (without one: limit)
    bit  63    zero    so that the word is a positive signed integer too, as compiled code counts

The high half alone is the verdict: what a decision makes of a limit, and ``verdict_word`` puts together. That of
the overall flag has the highest level, all reasons and the highest shed of all limits.

Thread ids stay below 2**22, so byte 3 (bits 24-31) is zero exactly when the sampler lives and nothing presses.
Source: futex(2), set_robust_list(2), Documentation/locking/robust-futex-ABI.rst.

A worker that presents itself has a request beside its flag: the bytes that it is asked to shed, and in which round.
"""

from __future__ import annotations

from shm_monitor.forks import importing
from shm_monitor.light import TYPE_CHECKING

if TYPE_CHECKING:
    from shm_monitor.schema import Level

TID_MASK = 0x3FFF_FFFF
DIED = 1 << 30
PRESSED = 1 << 31
HOT_BYTE = 3  # of the eight, little-endian
DIED_BYTE = DIED >> 24
PRESSED_BYTE = PRESSED >> 24

LEVEL_SHIFT = 32
LEVEL_MASK = 3
FIRST_PRESSING = (
    2  # Level.PRUNE as a number, for a worker that asks nothing else: loading its enum is a quarter of attaching
)
REASONS_SHIFT = 34
REASONS_MASK = 0xFFFF
INJECTED = 1 << 50  # the sample has false readings on purpose
BETWEEN = 1 << 0  # in the verdict of a sample alone, whose low half is free: taken between two turns, of memory alone
INJECTED_BEFORE = 1 << 1  # likewise: a reading of its observation period was false, so the verdict may rest on it
SHED_SHIFT = 51
SHED_MAX = 4095

ROUND_SHIFT = 48  # in a request
ROUND_MASK = 0xFFFF
BYTES_MASK = (1 << ROUND_SHIFT) - 1


def verdict_word(level: int, reasons: int, shed: float = 0.0) -> int:
    """Return the high half of a flag for *level*, the bits of *reasons* and *shed* (0 to 1); no thread id.

    ``shm_monitor.kernels.decide.word_of`` makes the same word by itself, in compiled code.
    """
    return level << LEVEL_SHIFT | (reasons & REASONS_MASK) << REASONS_SHIFT | int(shed * SHED_MAX + 0.5) << SHED_SHIFT


def flag_word(verdict: int, thread_id: int) -> int:
    """Return the whole flag of a live sampler: *verdict*, pressed from ``Level.PRUNE`` on, owned by *thread_id*."""
    return (verdict & ~(BETWEEN | INJECTED_BEFORE)) | thread_id | (PRESSED if presses(verdict) else 0)


def level_of(word: int) -> Level:
    """Return the level in *word*."""
    with importing:
        from shm_monitor.schema import Level  # which a worker loads when it first asks for more than should_prune()

    return Level(word >> LEVEL_SHIFT & LEVEL_MASK)


def level_number(word: int) -> int:
    """Return the number of the level in *word*."""
    return word >> LEVEL_SHIFT & LEVEL_MASK


def presses(word: int) -> bool:
    """Say whether the level in *word* is ``PRUNE`` or above."""
    return level_number(word) >= FIRST_PRESSING


def reasons_of(word: int) -> int:
    """Return the bits of the reasons in *word*."""
    return word >> REASONS_SHIFT & REASONS_MASK


def shed_of(word: int) -> float:
    """Return how much to shed by *word*, 0 to 1."""
    return (word >> SHED_SHIFT & SHED_MAX) / SHED_MAX


def ended_word(word: int) -> int:
    """Return *word* as the kernel would leave it at the owner's death: verdict kept, owner gone."""
    return word & ~TID_MASK | DIED


def request_word(round_number: int, size_bytes: int) -> int:
    """Return the request to shed *size_bytes* (2**48 - 1 at most) in round *round_number* (counted modulo 2**16)."""
    return (round_number & ROUND_MASK) << ROUND_SHIFT | min(size_bytes, BYTES_MASK)


def request_of(word: int) -> tuple[int, int]:
    """Return the number of the round and the bytes that the request *word* asks for."""
    return word >> ROUND_SHIFT & ROUND_MASK, word & BYTES_MASK
