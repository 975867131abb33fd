"""Where every byte of a segment lives. No I/O, nothing but the standard library: a worker imports this.

::

    page 0   header (written once; only what the words marked * say changes at a takeover)
     0x000 u64 magic            stored LAST: a non-zero magic means "complete"
     0x008 u32 major, minor     a reader needs its own major
     0x010 u32 header_size, endian_tag
     0x018 u64 total_size       checked against fstat
     0x020 u64 layout_hash      of the schema bytes
     0x028 u64 capabilities     bit 0: the kernel marks a dead sampler, 1: false readings may be injected,
                                2: the kernel ends a hung sampler
     0x030 u64 schema_offset, schema_size
     0x040 u64 flags_offset, u32 flag_count, flag_stride
     0x050 u64 requests_offset, u32 worker_count, first_worker_flag
     0x060 u64 ring_offset, u32 slot_count, slot_stride
     0x070 u8[16] boot_id
     0x080 u64 cgroup_namespace its inode; 0: the sampler does not say whose memory it measures
     0x088 u64[16] memory_cgroups inodes of the measured memory cgroups, 0 for none
     0x108 u64 pid *, pid_start_ticks *, created_realtime_ns, interval_ns *, stale_after_ns *
    page 1   hot words (one writer, so packed)
     +0x00 head, beat_mono_ns, state, epoch, incarnation, observation_period_ns
     +0x40 per collector: last_ok_mono_ns, error_count
    page 2   flags, one u64 each: the overall verdict, then one per limit, then room
    page 3   flags of workers that present themselves: that of worker k is first_worker_flag + k, the same word
    page 5   requests to those workers, one u64 each: bytes to shed in bits 0-47, number of the round in 48-63
    page 7.. schema (JSON), then on the next page the ring
    slot     number, epoch, mono_ns, realtime_ns, verdict           u64 each
             values[M], means[R], maxima[R], slopes[R], limits[K,S]  f64
             crc32, number                                           u64 each
"""

from __future__ import annotations

import struct
from zlib import crc32

from shm_monitor.light import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from shm_monitor.schema import Schema

PAGE_BYTES = 4096
WORD_BYTES = 8

MAGIC = int.from_bytes(b"SHMMON\r\n", "little")  # the line end shows a transfer in text mode, as in PNG
MAJOR = 3
MINOR = 0
ENDIAN_TAG = 0x01020304

KERNEL_MARKS_DEATH = 1 << 0  # capability bits
ACCEPTS_INJECTION = 1 << 1
KERNEL_ENDS_HANG = 1 << 2
NEEDS_NO_CLOCK = KERNEL_MARKS_DEATH | KERNEL_ENDS_HANG  # both: a flag alone says whether the sampler is alive

HEADER = struct.Struct("<QIIIIQQQQQQIIQIIQII16sQ128sQQQQQ")
CAPABILITIES_OFFSET = struct.calcsize("<QIIIIQQ")
PID_OFFSET = struct.calcsize("<QIIIIQQQQQQIIQIIQII16sQ128s")
START_TICKS_OFFSET = PID_OFFSET + WORD_BYTES
CREATED_OFFSET = START_TICKS_OFFSET + WORD_BYTES
INTERVAL_OFFSET = CREATED_OFFSET + WORD_BYTES
STALE_AFTER_OFFSET = INTERVAL_OFFSET + WORD_BYTES

HOT_OFFSET = PAGE_BYTES
HEAD_OFFSET = HOT_OFFSET
BEAT_OFFSET = HEAD_OFFSET + WORD_BYTES
STATE_OFFSET = BEAT_OFFSET + WORD_BYTES
EPOCH_OFFSET = STATE_OFFSET + WORD_BYTES
INCARNATION_OFFSET = EPOCH_OFFSET + WORD_BYTES
PERIOD_OFFSET = INCARNATION_OFFSET + WORD_BYTES
COLLECTORS_OFFSET = HOT_OFFSET + 64
COLLECTOR_STRIDE = 2 * WORD_BYTES
COLLECTORS_MAX = (HOT_OFFSET + PAGE_BYTES - COLLECTORS_OFFSET) // COLLECTOR_STRIDE

FLAGS_OFFSET = HOT_OFFSET + PAGE_BYTES
FLAG_STRIDE = WORD_BYTES
FIRST_WORKER_FLAG = PAGE_BYTES // FLAG_STRIDE  # before it: the overall flag and the limits', more than those that exist
OTHERS_FLAG = FIRST_WORKER_FLAG - 1  # all limits but those of memory, for workers that have a flag of their own
WORKER_COUNT = 1024  # with the limits' fewer than the 2,048 words that the kernel walks at a death
FLAG_COUNT = FIRST_WORKER_FLAG + WORKER_COUNT
REQUESTS_OFFSET = FLAGS_OFFSET + FLAG_COUNT * FLAG_STRIDE
SCHEMA_OFFSET = REQUESTS_OFFSET + WORKER_COUNT * WORD_BYTES

STARTING, LIVE, STOPPED, RETIRED = range(4)  # the state word
NO_BEAT = 2**64 - 1  # the beat of a sampler that stopped cleanly

SLOTS_MIN = 8  # a reader needs time to copy a slot; with 8, 39 of 200,000 reads were retried against a flat-out writer
SLOT_HEAD = struct.Struct("<QQQQQ")
SLOT_TAIL = struct.Struct("<QQ")


class Header(NamedTuple):
    """The header page, in its own order."""

    magic: int
    major: int
    minor: int
    header_size: int
    endian_tag: int
    total_size: int
    layout_hash: int
    capabilities: int
    schema_offset: int
    schema_size: int
    flags_offset: int
    flag_count: int
    flag_stride: int
    requests_offset: int
    worker_count: int
    first_worker_flag: int
    ring_offset: int
    slot_count: int
    slot_stride: int
    boot_id: bytes
    cgroup_namespace: int
    memory_cgroups: bytes
    pid: int
    pid_start_ticks: int
    created_realtime_ns: int
    interval_ns: int
    stale_after_ns: int


class SlotLayout(NamedTuple):
    """Offsets within one slot for M metrics, R of them rolled, and K limits of S numbers each."""

    metric_count: int
    rolled_count: int
    limit_count: int
    track_width: int

    @classmethod
    def of(cls, schema: Schema) -> SlotLayout:
        """Return the layout of the samples that *schema* describes."""
        return cls(len(schema.metrics), schema.rolled_count, len(schema.limits), len(schema.track_fields))

    @property
    def values(self) -> int:
        """Where the values begin."""
        return SLOT_HEAD.size

    @property
    def means(self) -> int:
        """Where the rolling means begin."""
        return self.values + self.metric_count * WORD_BYTES

    @property
    def maxima(self) -> int:
        """Where the rolling maxima begin."""
        return self.means + self.rolled_count * WORD_BYTES

    @property
    def slopes(self) -> int:
        """Where the rolling slopes begin."""
        return self.maxima + self.rolled_count * WORD_BYTES

    @property
    def limits(self) -> int:
        """Where the tracks of the limits begin."""
        return self.slopes + self.rolled_count * WORD_BYTES

    def track(self, index: int) -> int:
        """Return where the track of limit *index* begins: what the decision remembers of it."""
        return self.limits + index * self.track_width * WORD_BYTES

    @property
    def crc(self) -> int:
        """Where the crc32 of everything before it stands."""
        return self.limits + self.limit_count * self.track_width * WORD_BYTES

    @property
    def stride(self) -> int:
        """How many bytes a slot takes."""
        return self.crc + SLOT_TAIL.size


def up_to_page(size: int) -> int:
    """Return *size* rounded up to whole pages."""
    return -(-size // PAGE_BYTES) * PAGE_BYTES


def hash_of(schema: bytes) -> int:
    """Return the layout hash of *schema*: equal hash and size, equal meaning of every offset."""
    return crc32(schema) << 32 | crc32(schema[::-1])


def plan(schema: bytes, slot: SlotLayout, slot_count: int) -> Header:
    """Return the header of a new segment; what only its owner knows (pid, times, boot) is zero.

    Args:
        schema: the JSON that the segment carries.
        slot: the layout of one slot.
        slot_count: how many samples of history; at least ``SLOTS_MIN`` are kept.
    """
    slots = max(slot_count, SLOTS_MIN)
    ring_offset = up_to_page(SCHEMA_OFFSET + len(schema))
    return Header(
        magic=MAGIC,
        major=MAJOR,
        minor=MINOR,
        header_size=HEADER.size,
        endian_tag=ENDIAN_TAG,
        total_size=up_to_page(ring_offset + slots * slot.stride),
        layout_hash=hash_of(schema),
        capabilities=0,
        schema_offset=SCHEMA_OFFSET,
        schema_size=len(schema),
        flags_offset=FLAGS_OFFSET,
        flag_count=FLAG_COUNT,
        flag_stride=FLAG_STRIDE,
        requests_offset=REQUESTS_OFFSET,
        worker_count=WORKER_COUNT,
        first_worker_flag=FIRST_WORKER_FLAG,
        ring_offset=ring_offset,
        slot_count=slots,
        slot_stride=slot.stride,
        boot_id=bytes(16),
        cgroup_namespace=0,
        memory_cgroups=bytes(128),
        pid=0,
        pid_start_ticks=0,
        created_realtime_ns=0,
        interval_ns=0,
        stale_after_ns=0,
    )


def flaw(header: Header, mapped_bytes: int) -> str:
    """Return what is wrong with *header* for a mapping of *mapped_bytes*, or an empty string.

    Every offset is checked here, before anything is built on it; the version is the caller's business.
    """
    checks = (
        (header.endian_tag == ENDIAN_TAG, f"endian tag {header.endian_tag:#x}"),
        (header.header_size == HEADER.size, f"header size {header.header_size}, not {HEADER.size}"),
        (header.total_size == mapped_bytes, f"total size {header.total_size}, but the object has {mapped_bytes}"),
        (header.schema_offset == SCHEMA_OFFSET, f"schema offset {header.schema_offset}"),
        (header.schema_size < header.total_size, f"schema size {header.schema_size}"),
        (header.flags_offset == FLAGS_OFFSET, f"flags offset {header.flags_offset}"),
        (header.flag_count == FLAG_COUNT, f"flag count {header.flag_count}"),
        (header.flag_stride == FLAG_STRIDE, f"flag stride {header.flag_stride}"),
        (header.requests_offset == REQUESTS_OFFSET, f"requests offset {header.requests_offset}"),
        (header.worker_count == WORKER_COUNT, f"{header.worker_count} workers"),
        (header.first_worker_flag == FIRST_WORKER_FLAG, f"first worker's flag {header.first_worker_flag}"),
        (header.ring_offset == up_to_page(SCHEMA_OFFSET + header.schema_size), f"ring offset {header.ring_offset}"),
        (header.slot_count >= SLOTS_MIN, f"{header.slot_count} slots"),
        (
            header.slot_stride >= SLOT_HEAD.size + SLOT_TAIL.size and header.slot_stride % WORD_BYTES == 0,
            f"slot stride {header.slot_stride}",
        ),
        (
            up_to_page(header.ring_offset + header.slot_count * header.slot_stride) == header.total_size,
            f"a ring of {header.slot_count} x {header.slot_stride} bytes at {header.ring_offset}",
        ),
        (1 <= header.interval_ns <= 2**63, f"interval {header.interval_ns} ns"),
        (1 <= header.stale_after_ns <= 2**63, f"stale after {header.stale_after_ns} ns"),
    )
    return next((message for good, message in checks if not good), "")
