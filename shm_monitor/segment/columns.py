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


def _unpacker(indices: Iterable[int]) -> Unpack:
    """Return what takes the numbers *indices* (ascending) out of a row of 8-byte floats."""
    form, end = ["<"], 0
    for index in indices:
        form.append(f"{(index - end) * WORD_BYTES}xd")
        end = index + 1
    return struct.Struct("".join(form)).unpack_from


class TrackColumns:
    """Some columns of a track, by name (``schema.TRACK_HELP``); one that its sampler does not keep is NaN.

    Attributes:
        names: the columns, in the order in which they are read.
        values: ``values(slot, offset)``: the columns as floats; *offset* is where the track begins
            (``track``).
    """

    __slots__ = ("names", "values")

    def __init__(self, fields: Sequence[str], names: Sequence[str]) -> None:
        """Take *names* out of tracks whose columns are *fields*."""
        places = {name: place for place, name in enumerate(fields)}
        there = sorted((name for name in names if name in places), key=places.__getitem__)
        absent = tuple(name for name in names if name not in places)
        indices = [places[name] for name in there]
        self.names = (*there, *absent)
        unpack = _unpacker(indices)
        self.values = _padded(unpack, len(absent)) if absent else unpack


def _padded(unpack: Unpack, count: int) -> Unpack:
    """Return *unpack* with *count* numbers more, all unknown."""
    absent = (math.nan,) * count
    return lambda slot, offset: unpack(slot, offset) + absent
