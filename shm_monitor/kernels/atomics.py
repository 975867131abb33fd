"""Loads and stores that LLVM may neither fold, tear nor move out of a loop, at an address.

``while flag[0] == 0`` over a plain array compiles to an endless loop: nothing in the loop writes the array, so LLVM
reads it once. An atomic load happens each time.

Source: LLVM language reference, "Atomic Memory Ordering Constraints".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from shm_monitor.segment.flags import DIED_BYTE

_BYTE = ir.IntType(8)
_WORD = ir.IntType(64)


def _byte_loader(_typing: object, _address: types.Type) -> Any:
    def code(_context: object, builder: ir.IRBuilder, _signature: object, args: tuple[ir.Value]) -> ir.Value:
        pointer = builder.inttoptr(args[0], _BYTE.as_pointer())
        return builder.load_atomic(pointer, ordering="acquire", align=1, typ=_BYTE)

    return types.uint8(types.uintp), code


def _word_loader(_typing: object, _address: types.Type) -> Any:
    def code(_context: object, builder: ir.IRBuilder, _signature: object, args: tuple[ir.Value]) -> ir.Value:
        pointer = builder.inttoptr(args[0], _WORD.as_pointer())
        return builder.load_atomic(pointer, ordering="acquire", align=8, typ=_WORD)

    return types.uint64(types.uintp), code


def _word_storer(_typing: object, _address: types.Type, _value: types.Type) -> Any:
    def code(context: Any, builder: ir.IRBuilder, _signature: object, args: tuple[ir.Value, ir.Value]) -> ir.Value:
        pointer = builder.inttoptr(args[0], _WORD.as_pointer())
        builder.store_atomic(args[1], pointer, ordering="release", align=8)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uint64), code


_load_byte = cast("Callable[[int], int]", intrinsic(_byte_loader))
_load_word = cast("Callable[[int], int]", intrinsic(_word_loader))
_store_word = cast("Callable[[int, int], None]", intrinsic(_word_storer))


@njit(nogil=True)
def should_prune_at(address: int) -> bool:
    """Return whether the flag whose byte 3 lies at *address* presses: about 1 ns, for use inside ``@njit`` loops.

    A flag that the kernel has marked (its sampler is dead) presses nothing, as with ``on_stale="never"``.
    *address* must stay mapped for as long as anybody asks: pass ``reader.flag_address`` itself, which sees to that.
    """
    byte = _load_byte(address)
    return byte != 0 and byte & DIED_BYTE == 0


@njit(nogil=True)
def load_word(address: int) -> int:
    """Return the u64 at *address* (a multiple of 8), loaded whole; later reads are not moved before it (acquire)."""
    return _load_word(address)


@njit(nogil=True)
def store_word(address: int, value: int) -> None:
    """Store *value* as the u64 at *address* (a multiple of 8), whole; earlier writes show before it (release)."""
    _store_word(address, value)
