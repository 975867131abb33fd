"""A read-only look at one segment: its words, its newest sample, its schema."""

from __future__ import annotations

import struct

from shm_monitor.errors import CorruptError, NotReadyError, SegmentError
from shm_monitor.forks import importing
from shm_monitor.light import TYPE_CHECKING, NamedTuple
from shm_monitor.segment import layout, memory_identity
from shm_monitor.segment.layout import COLLECTOR_STRIDE, COLLECTORS_OFFSET, SLOT_HEAD, WORD_BYTES, SlotLayout
from shm_monitor.segment.mapping import open_read_only, read_slot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shm_monitor.schema import Schema

READ_TRIES = 8  # against a writer going flat out, 39 of 200,000 reads needed a second one


class Sample(NamedTuple):
    """One whole sample, copied out of the ring.

    Args:
        number: counts up by one per sample while the segment lives.
        epoch: a random value per sampler incarnation.
        mono_ns: when it was taken, on the monotonic clock.
        realtime_ns: the same for people.
        verdict: the overall verdict, as the high half of a flag.
        data: the bytes of the slot; the offsets are those of the view's ``slot``.
        degraded: true when no newer sample could be read whole and this is the last good one.
    """

    number: int
    epoch: int
    mono_ns: int
    realtime_ns: int
    verdict: int
    data: bytes
    degraded: bool = False


class View:
    """A checked read-only mapping of one segment. Safe from any number of threads, survives fork.

    Attributes:
        name: the name it was opened by.
        identity: (device, inode) of the object, to see whether the name has moved on.
        memory: the mapping.
        header: checked; ``pid`` and the times as they were when it was opened.
        kept: what was worked out once for this segment, by the type that did.
        needs_no_clock: true when a flag alone says whether the sampler is alive, hung ones included.
    """

    def __init__(self, name: str) -> None:
        """Open the segment *name*.

        Raises:
            SegmentError: one of its kinds, see ``shm_monitor.segment.mapping.open_read_only``.
        """
        self.name = name
        self.memory, self.header, self.identity = open_read_only(name)
        self.needs_no_clock = self.header.capabilities & layout.NEEDS_NO_CLOCK == layout.NEEDS_NO_CLOCK
        self.kept: dict[type, object] = {}
        self._words = memoryview(self.memory).cast("Q")
        self._schema: Schema | None = None
        self._slot: SlotLayout | None = None
        self._last: Sample | None = None

    def word(self, offset: int) -> int:
        """Return the u64 at *offset*, never half of an old and half of a new one."""
        return self._words[offset // WORD_BYTES]

    def flag(self, index: int) -> int:
        """Return flag *index*: 0 is the overall verdict."""
        return self._words[(layout.FLAGS_OFFSET + index * layout.FLAG_STRIDE) // WORD_BYTES]

    @property
    def schema(self) -> Schema:
        """The tables that the segment carries. Parsed once, about 1 ms.

        Raises:
            CorruptError: they do not match their hash, or the slots are not made for them.
        """
        if self._schema is None:
            self._schema, self._slot = self._checked_schema()
        return self._schema

    @property
    def slot(self) -> SlotLayout:
        """The layout of a slot."""
        if self._slot is None:
            self._schema, self._slot = self._checked_schema()
        return self._slot

    def sample(self) -> Sample:
        """Return the newest sample, whole. 2 us for about 64 metrics.

        Raises:
            NotReadyError: not one whole sample could be read.
        """
        for _ in range(READ_TRIES):
            head = self.word(layout.HEAD_OFFSET)
            if self._last is not None and self._last.number == head:
                return self._last  # a sample never changes once it is complete
            found = self.sample_at(head)
            if found is not None:
                self._last = found
                return found
        if self._last is None:
            raise NotReadyError(self.name, f"no whole sample in {READ_TRIES} tries")
        return self._last._replace(degraded=True)

    def sample_at(self, number: int) -> Sample | None:
        """Return sample *number*, or None when the ring has it no longer, or not yet."""
        data = read_slot(self.memory, self.header, number, crc_offset=self.slot.crc)
        return None if data is None else Sample._make((*SLOT_HEAD.unpack_from(data), data, False))

    def samples(self, after: int = 0) -> Iterator[Sample]:
        """Yield the samples of the ring that follow number *after*, oldest first."""
        head = self.word(layout.HEAD_OFFSET)
        oldest = max(head - self.header.slot_count + 1, after + 1, 1)
        for number in range(oldest, min(head, oldest + self.header.slot_count) + 1):
            found = self.sample_at(number)
            if found is not None:
                yield found

    def collector_words(self) -> list[int]:
        """Return last success and errors of each collector, one after the other."""
        first = COLLECTORS_OFFSET // WORD_BYTES
        return self._words[first : first + 2 * len(self.schema.collectors)].tolist()

    def collector(self, index: int) -> tuple[int, int]:
        """Return (monotonic ns of the last success or 0, errors) of collector *index*."""
        offset = COLLECTORS_OFFSET + index * COLLECTOR_STRIDE
        return self.word(offset), self.word(offset + WORD_BYTES)

    def check_memory(self) -> None:
        """Return where the sampler measures the innermost cgroup that limits the memory of this process. 0.1 ms.

        Raises:
            OtherMemoryError: it measures other memory.
        """
        memory_identity.check(self.name, self.header, self._measured)

    def _measured(self) -> str:
        """Say for people which cgroup the sampler measures, with its limit."""
        try:
            name = self.schema.facts["memory"]["scopes"][-1]
            place = self.schema.places["memory:0.capacity_bytes"]
            (size,) = struct.unpack_from("<d", self.sample().data, self.slot.values + place * WORD_BYTES)
        except (SegmentError, LookupError, TypeError):
            return "the host"
        return f"{name} (limit {memory_identity.megabytes(size)})" if size == size else f"{name} (no limit)"  # noqa: PLR0124

    def _checked_schema(self) -> tuple[Schema, SlotLayout]:
        with importing:
            from shm_monitor.schema import Schema  # 2 ms that a worker that only asks should_prune() never pays

        header = self.header
        data = self.memory[header.schema_offset : header.schema_offset + header.schema_size]
        if layout.hash_of(data) != header.layout_hash:
            raise CorruptError(self.name, "its schema does not match its hash")
        try:
            schema = Schema.from_json(data)
        except ValueError as error:
            raise CorruptError(self.name, str(error)) from error
        slot = SlotLayout.of(schema)
        fits = len(schema.limits) < header.first_worker_flag - 1 and len(schema.collectors) <= layout.COLLECTORS_MAX
        if slot.stride != header.slot_stride or not fits:
            raise CorruptError(self.name, f"slots of {header.slot_stride} bytes, its schema needs {slot.stride}")
        return schema, slot


def view_of(name: str) -> View | None:
    """Return the segment of *name*; None where there is none that can be read."""
    try:
        return View(name)
    except SegmentError:
        return None
