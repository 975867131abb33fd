"""Columns of 8-byte numbers taken out of a sample: the one decoder of what the decision remembers of a limit."""

from __future__ import annotations

import math
import struct

from shm_monitor.light import TYPE_CHECKING
from shm_monitor.segment.layout import WORD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    Unpack = Callable[[bytes, int], tuple[Any, ...]]
    """Takes numbers out of the bytes of a slot, from an offset on."""


def unpacker(indices: Iterable[int], code: str) -> Unpack:
    """Return what takes the numbers *indices* (ascending) out of a row of 8-byte numbers, in the struct code *code*."""
    form, end = ["<"], 0
    for index in indices:
        form.append(f"{(index - end) * WORD_BYTES}x{code}")
        end = index + 1
    return struct.Struct("".join(form)).unpack_from


class TrackColumns:
    """Some columns of a track, by name (``schema.TRACK_HELP``); one that its sampler does not keep is NaN.

    Attributes:
        names: the columns, in the order in which they are read.
        values: ``values(slot, offset)``: the columns as floats; *offset* is where the track begins
            (``track``).
        words: the same as integers, of the columns that there are: for comparing, as no NaN equals another.
    """

    __slots__ = ("_kept", "names", "values", "words")

    def __init__(self, fields: Sequence[str], names: Sequence[str]) -> None:
        """Take *names* out of tracks whose columns are *fields*."""
        places = {name: place for place, name in enumerate(fields)}
        there = sorted((name for name in names if name in places), key=places.__getitem__)
        absent = tuple(name for name in names if name not in places)
        indices = [places[name] for name in there]
        self._kept = frozenset(there)
        self.names = (*there, *absent)
        self.words = unpacker(indices, "Q")
        self.values = _padded(unpacker(indices, "d"), len(absent)) if absent else unpacker(indices, "d")

    def __contains__(self, name: str) -> bool:
        """Say whether the sampler keeps the column *name*."""
        return name in self._kept


def _padded(unpack: Unpack, count: int) -> Unpack:
    """Return *unpack* with *count* numbers more, all unknown."""
    absent = (math.nan,) * count
    return lambda slot, offset: unpack(slot, offset) + absent
