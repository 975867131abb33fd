"""Compiled kernels without their compiler: numba's object code, placed and linked here, called through ctypes.

Loading a kernel from numba's cache costs 110 MB of private memory, llvmlite's library alone 39; the code itself is
20 KB. So a child compiles (``compile_ahead``), rehearses what is done here, and hands over the
bytes. What is not understood is refused, and the caller has numba load it.

Only what numba 0.61 and later emit for x86-64 is linked: absolute and relative words, within the object or to a few
functions of libc. Array arguments follow numba's own convention: no owner, items, itemsize, data, shape, strides.

Source: ELF-64 object file format; System V ABI, AMD64 supplement, 4.4 (relocation).
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import weakref
from operator import is_
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shm_monitor.errors import MonitorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_MAGIC = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian, version 1
_X86_64, _RELOCATABLE = 62, 1
_PROGBITS, _SYMTAB, _RELA, _NOBITS = 1, 2, 4, 8
_ALLOCATED = 2
_UNDEFINED, _COMMON = 0, 0xFFF2
_R_64, _R_PC32, _R_PLT32, _R_PC64 = 1, 2, 4, 24

_LIBC = ("memset", "memcpy", "memmove", "sqrt", "fmod", "pow", "exp", "log", "floor", "ceil")
# Called for an array whose memory numba owns; those that are passed here have no owner.
_NEVER_CALLED = ("NRT_MemInfo_call_dtor",)


class ObjectCodeError(MonitorError):
    """Object code that cannot be linked here; says why."""


class ObjectCode(NamedTuple):
    """One compiled kernel.

    Args:
        symbol: the name of the function.
        result: ``int64``, or ``none``.
        elf: a relocatable object.
    """

    symbol: str
    result: str
    elf: bytes


class _Section(NamedTuple):
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int


class _Symbol(NamedTuple):
    name: str
    section: int
    value: int
    size: int


class _Relocation(NamedTuple):
    section: int
    offset: int
    kind: int
    symbol: int
    addend: int


class _Elf:
    """The parts of an object that matter for linking it."""

    def __init__(self, data: bytes) -> None:
        head = _HEADER.unpack_from(data)
        if not head[0].startswith(_MAGIC) or head[1:3] != (_RELOCATABLE, _X86_64):
            raise ObjectCodeError("not a relocatable object for x86-64")
        self.data = data
        self.sections = [
            _Section(*(_SECTION.unpack_from(data, head[6] + at * head[11])[place] for place in (1, 2, 4, 5, 6, 7, 8)))
            for at in range(head[12])
        ]
        table = next(one for one in self.sections if one.kind == _SYMTAB)
        names = self.sections[table.link].offset
        self.symbols = [
            _Symbol(self._name(names + name), section, value, size)
            for name, _, _, section, value, size in _SYMBOL.iter_unpack(self.content(table))
        ]
        self.relocations = [
            _Relocation(one.info, offset, info & 0xFFFFFFFF, info >> 32, addend)
            for one in self.sections
            if one.kind == _RELA
            for offset, info, addend in _RELOCATION.iter_unpack(self.content(one))
        ]

    def content(self, section: _Section) -> bytes:
        """Return the bytes of *section*."""
        return self.data[section.offset : section.offset + section.size]

    def _name(self, offset: int) -> str:
        return self.data[offset : self.data.index(0, offset)].decode()

    def needed(self, entry: int) -> tuple[set[int], list[_Relocation]]:
        """Return the sections and the relocations of whatever symbol *entry* can reach."""
        reached, ahead = {entry}, [entry]
        sections, relocations = set[int](), list[_Relocation]()
        while ahead:
            symbol = self.symbols[ahead.pop()]
            sections.add(symbol.section)
            for one in self._relocations_in(symbol):
                relocations.append(one)
                if one.symbol not in reached:
                    reached.add(one.symbol)
                    ahead.append(one.symbol)
        return sections - {_UNDEFINED, _COMMON}, relocations

    def _relocations_in(self, symbol: _Symbol) -> Iterator[_Relocation]:
        for one in self.relocations:
            if one.section == symbol.section and symbol.value <= one.offset < symbol.value + symbol.size:
                yield one


class Linked:
    """A function in memory that may be executed and no longer written, as long as this object lives.

    Attributes:
        address: where it begins.
    """

    def __init__(self, code: ObjectCode) -> None:
        """Place and link *code*.

        Raises:
            ObjectCodeError: another machine, an unknown relocation, a function that is not there.
            OSError: the system lets nobody make memory executable.
        """
        if platform.machine() not in {"x86_64", "AMD64"}:
            raise ObjectCodeError(f"object code is not linked on {platform.machine()}")
        try:
            elf = _Elf(code.elf)
            entry = next(at for at, one in enumerate(elf.symbols) if one.name == code.symbol)
            self._link(elf, entry)
        except (struct.error, IndexError, ValueError, StopIteration) as error:
            raise ObjectCodeError(f"object code of {code.symbol} is damaged: {error!r}") from error

    def _link(self, elf: _Elf, entry: int) -> None:
        sections, relocations = elf.needed(entry)
        places, size = dict[int, int](), 0
        for at in sorted(sections):
            size = -(-size // max(elf.sections[at].align, 1)) * max(elf.sections[at].align, 1)
            places[at] = size
            size += elf.sections[at].size
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        for at, place in places.items():
            if elf.sections[at].kind == _PROGBITS:
                self._memory[place : place + elf.sections[at].size] = elf.content(elf.sections[at])
        for one in relocations:
            symbol = elf.symbols[one.symbol]
            target = base + places[symbol.section] + symbol.value if symbol.section in places else _outside(symbol.name)
            self._write(base, places[one.section] + one.offset, one.kind, target + one.addend)
        _make_executable(base, size)
        self.address = base + places[elf.symbols[entry].section] + elf.symbols[entry].value

    def _write(self, base: int, place: int, kind: int, target: int) -> None:
        if kind == _R_64:
            struct.pack_into("<Q", self._memory, place, target)
        elif kind == _R_PC64:
            struct.pack_into("<q", self._memory, place, target - base - place)
        elif kind in {_R_PC32, _R_PLT32}:
            struct.pack_into("<i", self._memory, place, target - base - place)
        else:
            raise ObjectCodeError(f"relocation of type {kind}")


def _outside(name: str) -> int:
    """Return the address of the function *name* of libc; 0 for what is never called."""
    if name in _NEVER_CALLED:
        return 0
    if name not in _LIBC:
        raise ObjectCodeError(f"it calls {name or 'something without a name'}")
    found = getattr(ctypes.CDLL(None), name, None) or getattr(ctypes.CDLL("libm.so.6"), name)
    return ctypes.cast(found, ctypes.c_void_p).value or 0


def _make_executable(address: int, size: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), mmap.PROT_READ | mmap.PROT_EXEC):
        raise OSError(ctypes.get_errno(), "memory cannot be made executable")


class Native:
    """A linked kernel as a function of arrays and integers, like the one it was compiled from.

    Arrays that are passed again are not looked at again, which costs 5 us a call, about what numba takes to unpack as
    many. They are not kept alive: a mapping that they look into can be closed.
    """

    def __init__(self, code: ObjectCode) -> None:
        """Link *code*; raises what ``Linked`` raises."""
        self._linked = Linked(code)
        self._result = ctypes.c_int64()
        self._error = ctypes.c_void_p()
        self._returns = code.result != "none"
        self._last: list[Callable[[], Any]] = []
        self._call: Callable[[], int] = int

    def __call__(self, *arguments: Any) -> int | None:
        """Run it; returns what it returns."""
        if len(arguments) != len(self._last) or not all(map(is_, arguments, [last() for last in self._last])):
            self._call, self._last = self._bound(arguments), list(map(_remembered, arguments))
        status = self._call()
        if status:
            raise RuntimeError(f"a kernel ended with status {status}")
        return self._result.value if self._returns else None

    def _bound(self, arguments: tuple[Any, ...]) -> Callable[[], int]:
        words = [ctypes.addressof(self._result), ctypes.addressof(self._error)]
        for one in arguments:
            words += _flat(one) if isinstance(one, np.ndarray) else [int(one)]
        prototype = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int64] * len(words))
        function, values = prototype(self._linked.address), [ctypes.c_int64(word) for word in words]
        return lambda: int(function(*values))


def _remembered(argument: Any) -> Callable[[], Any]:
    """Return what returns *argument*, an array only as long as somebody else has it."""
    return weakref.ref(argument) if isinstance(argument, np.ndarray) else lambda: argument


def _flat(array: np.ndarray[Any, Any]) -> list[int]:
    """Return *array* as numba passes it: owner, parent, items, bytes of one, data, shape, strides."""
    return [0, 0, array.size, array.itemsize, array.ctypes.data, *array.shape, *array.strides]
