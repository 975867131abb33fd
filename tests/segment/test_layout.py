"""Every byte of version 2 is pinned here: a change of any of these numbers needs another major version."""

from __future__ import annotations

import re
from typing import Any

import pytest

from shm_monitor.sampler.publisher import slot_dtype
from shm_monitor.schema import Level
from shm_monitor.segment import flags, layout
from shm_monitor.segment.layout import HEADER, Header, SlotLayout, flaw, plan
from tests.support.engine import Engine

SLOT = SlotLayout(metric_count=5, rolled_count=2, limit_count=3, track_width=4)
SCHEMA = b'{"metrics":[]}'

HEADER_GOLDEN = {
    "magic": (0x000, 8),
    "major": (0x008, 4),
    "minor": (0x00C, 4),
    "header_size": (0x010, 4),
    "endian_tag": (0x014, 4),
    "total_size": (0x018, 8),
    "layout_hash": (0x020, 8),
    "capabilities": (0x028, 8),
    "schema_offset": (0x030, 8),
    "schema_size": (0x038, 8),
    "flags_offset": (0x040, 8),
    "flag_count": (0x048, 4),
    "flag_stride": (0x04C, 4),
    "requests_offset": (0x050, 8),
    "worker_count": (0x058, 4),
    "first_worker_flag": (0x05C, 4),
    "ring_offset": (0x060, 8),
    "slot_count": (0x068, 4),
    "slot_stride": (0x06C, 4),
    "boot_id": (0x070, 16),
    "cgroup_namespace": (0x080, 8),
    "memory_cgroups": (0x088, 128),
    "pid": (0x108, 8),
    "pid_start_ticks": (0x110, 8),
    "created_realtime_ns": (0x118, 8),
    "interval_ns": (0x120, 8),
    "stale_after_ns": (0x128, 8),
}

WORDS_GOLDEN = {
    "CAPABILITIES_OFFSET": 0x028,
    "PID_OFFSET": 0x108,
    "START_TICKS_OFFSET": 0x110,
    "CREATED_OFFSET": 0x118,
    "INTERVAL_OFFSET": 0x120,
    "STALE_AFTER_OFFSET": 0x128,
    "HEAD_OFFSET": 0x1000,
    "BEAT_OFFSET": 0x1008,
    "STATE_OFFSET": 0x1010,
    "EPOCH_OFFSET": 0x1018,
    "INCARNATION_OFFSET": 0x1020,
    "PERIOD_OFFSET": 0x1028,
    "COLLECTORS_OFFSET": 0x1040,
    "COLLECTOR_STRIDE": 16,
    "COLLECTORS_MAX": 252,
    "FLAGS_OFFSET": 0x2000,
    "FLAG_STRIDE": 8,
    "FIRST_WORKER_FLAG": 512,
    "WORKER_COUNT": 1024,
    "FLAG_COUNT": 1536,
    "REQUESTS_OFFSET": 0x5000,
    "SCHEMA_OFFSET": 0x7000,
    "MAJOR": 3,
    "MINOR": 0,
    "ENDIAN_TAG": 0x01020304,
    "KERNEL_MARKS_DEATH": 1,
    "ACCEPTS_INJECTION": 2,
    "KERNEL_ENDS_HANG": 4,
    "STARTING": 0,
    "LIVE": 1,
    "STOPPED": 2,
    "RETIRED": 3,
    "NO_BEAT": 0xFFFF_FFFF_FFFF_FFFF,
    "SLOTS_MIN": 8,
}

SLOT_GOLDEN = {
    "number": 0,
    "epoch": 8,
    "mono_ns": 16,
    "realtime_ns": 24,
    "verdict": 32,
    "values": 40,
    "means": 80,
    "maxima": 96,
    "slopes": 112,
    "limits": 128,
    "crc": 224,
    "number_end": 232,
}

CHECKED_ELSEWHERE = {
    *("magic", "major", "minor", "layout_hash", "capabilities"),
    *("boot_id", "cgroup_namespace", "memory_cgroups", "pid", "pid_start_ticks", "created_realtime_ns"),
}


def field_places() -> dict[str, tuple[int, int]]:
    """Return offset and size of each field of the header, from its format."""
    places, offset = {}, 0
    codes = re.findall(r"\d*[A-Za-z]", HEADER.format.lstrip("<"))
    fields = [code if code.endswith("s") else code[-1] for code in codes for _ in range(_repeats(code))]
    for name, code in zip(Header._fields, fields, strict=True):
        size = {"Q": 8, "I": 4, "16s": 16, "128s": 128}[code]
        places[name] = (offset, size)
        offset += size
    assert offset == HEADER.size
    return places


def _repeats(code: str) -> int:
    return 1 if code.endswith("s") else int(code[:-1] or 1)


def good_header() -> tuple[Header, int]:
    """Return a header without a flaw, and the size of its object."""
    header = plan(SCHEMA, SLOT, 100)._replace(interval_ns=10**9, stale_after_ns=3 * 10**9)
    assert flaw(header, header.total_size) == ""
    return header, header.total_size


def test_the_fields_of_the_header_stay_where_they_are() -> None:
    assert field_places() == HEADER_GOLDEN
    assert HEADER.size == 0x130


def test_the_words_outside_the_header_stay_where_they_are() -> None:
    assert {name: getattr(layout, name) for name in WORDS_GOLDEN} == WORDS_GOLDEN


def test_the_magic_is_eight_bytes_that_a_transfer_as_text_would_change() -> None:
    assert layout.MAGIC.to_bytes(8, "little") == b"SHMMON\r\n"


def test_every_word_is_aligned() -> None:
    wide = [offset for offset, size in HEADER_GOLDEN.values() if size >= 8]
    assert all(offset % 8 == 0 for offset in [*wide, *SLOT_GOLDEN.values(), SLOT.stride])


def test_a_slot_stays_as_it_is_and_numpy_agrees() -> None:
    dtype = slot_dtype(SLOT)
    assert dtype.fields is not None
    assert {name: dtype.fields[name][1] for name in dtype.names or ()} == SLOT_GOLDEN
    assert {name: getattr(SLOT, name) for name in ("values", "means", "maxima", "slopes", "limits", "crc")} == {
        name: SLOT_GOLDEN[name] for name in ("values", "means", "maxima", "slopes", "limits", "crc")
    }
    assert SLOT.stride == dtype.itemsize == 240


def test_a_plan_puts_schema_and_ring_on_pages_of_their_own() -> None:
    header = plan(SCHEMA, SLOT, 100)
    assert header == Header(
        magic=layout.MAGIC,
        major=3,
        minor=0,
        header_size=0x130,
        endian_tag=0x01020304,
        total_size=0x8000 + 6 * 4096,
        layout_hash=0x8CD48F13_E142D9CC,
        capabilities=0,
        schema_offset=0x7000,
        schema_size=14,
        flags_offset=0x2000,
        flag_count=1536,
        flag_stride=8,
        requests_offset=0x5000,
        worker_count=1024,
        first_worker_flag=512,
        ring_offset=0x8000,
        slot_count=100,
        slot_stride=240,
        boot_id=bytes(16),
        cgroup_namespace=0,
        memory_cgroups=bytes(128),
        pid=0,
        pid_start_ticks=0,
        created_realtime_ns=0,
        interval_ns=0,
        stale_after_ns=0,
    )


def test_a_ring_has_at_least_eight_slots() -> None:
    assert plan(SCHEMA, SLOT, 0).slot_count == 8
    assert plan(SCHEMA, SLOT, 8).slot_count == 8
    assert plan(SCHEMA, SLOT, 9).slot_count == 9


@pytest.mark.parametrize(
    "field",
    [name for name in Header._fields if name not in CHECKED_ELSEWHERE],
)
def test_a_wrong_field_is_a_flaw(field: str) -> None:
    """What is left out is checked by the caller (magic, version, hash) or only informs."""
    header, size = good_header()
    for new in (0, getattr(header, field) ^ 1 << 31, 2**32 - 1, 2**64 - 1):
        changed: dict[str, Any] = {field: new}
        is_a_time = field.endswith("_ns") and 0 < new <= 2**63
        assert bool(flaw(header._replace(**changed), size)) is not is_a_time, new


def test_an_object_of_another_size_is_a_flaw() -> None:
    header, size = good_header()
    assert flaw(header, size - 4096)
    assert flaw(header, size + 4096)


def test_a_flag_presses_from_the_level_on_that_is_called_prune() -> None:
    """The segment counts levels by itself: a worker that only asks loads no enum."""
    assert flags.FIRST_PRESSING == Level.PRUNE
    assert {level: flags.presses(flags.verdict_word(level, 0)) for level in Level} == {
        level: level >= Level.PRUNE for level in Level
    }


def test_a_flag_says_everything_in_one_word() -> None:
    calm = flags.flag_word(flags.verdict_word(Level.WARN, 0b101), 4711)
    pressed = flags.flag_word(flags.verdict_word(Level.PRUNE, 0b101, 0.2), 4711)

    assert calm == 4711 | 1 << 32 | 0b101 << 34
    assert pressed == 4711 | 1 << 31 | 2 << 32 | 0b101 << 34 | 819 << 51
    assert [flags.level_of(word) for word in (calm, pressed)] == [Level.WARN, Level.PRUNE]
    assert [flags.presses(word) for word in (calm, pressed)] == [False, True]
    assert flags.reasons_of(pressed) == 0b101
    assert [flags.shed_of(word) for word in (calm, pressed)] == [0.0, 819 / 4095]


@pytest.mark.parametrize(
    ("shed", "bits"), [(0.0, 0), (1e-9, 0), (1 / 4095, 1), (0.5, 2048), (0.9999, 4095), (1.0, 4095)]
)
def test_how_much_to_shed_is_rounded_to_twelve_bits(shed: float, bits: int) -> None:
    """The ends are exact: 0 is nothing, 1 is the capacity."""
    word = flags.flag_word(flags.verdict_word(Level.CRITICAL, flags.REASONS_MASK, shed) | flags.INJECTED, 2**22 - 1)

    assert word >> flags.SHED_SHIFT == bits
    assert word < 2**63
    assert flags.shed_of(word) == bits / 4095
    assert flags.shed_of(flags.ended_word(word)) == bits / 4095


def test_the_step_makes_the_same_word_as_the_layout() -> None:
    """The step is compiled, so that it spells the shifts out."""
    engine = Engine()
    target, capacity = 0.945 * 92.0, 100.0
    for percent in (50.0, 88.0, 93.0, 98.0, 120.0):
        engine.feed([percent] * 20)
        word = engine.words[-1][0]
        shed = min(max((percent - target) / (capacity - target), 0.0), 1.0)
        assert word == flags.verdict_word(flags.level_of(word), flags.reasons_of(word), shed)
        assert word == engine.verdicts[-1]


def test_a_request_is_one_word() -> None:
    word = flags.request_word(7, 105 << 20)

    assert word == 7 << 48 | 105 << 20
    assert flags.request_of(word) == (7, 105 << 20)
    assert flags.request_of(flags.request_word(2**16 + 1, 2**50)) == (1, 2**48 - 1)


@pytest.mark.parametrize("level", list(Level))
@pytest.mark.parametrize("thread_id", [1, 2**22 - 1])
def test_the_hot_byte_is_zero_exactly_when_calm_and_alive(level: Level, thread_id: int) -> None:
    word = flags.flag_word(flags.verdict_word(level, flags.REASONS_MASK), thread_id)
    hot = word.to_bytes(8, "little")[flags.HOT_BYTE]

    assert hot == (flags.PRESSED_BYTE if level >= Level.PRUNE else 0)
    ended = flags.ended_word(word)
    assert ended.to_bytes(8, "little")[flags.HOT_BYTE] == hot | flags.DIED_BYTE
    assert ended & flags.TID_MASK == 0
    assert flags.level_of(ended) == level
