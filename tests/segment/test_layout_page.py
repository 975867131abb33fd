"""docs/segment.md says of every byte what the code does."""

from __future__ import annotations

import re
import struct

import pytest

from shm_monitor.schema import Reason, Unknown
from shm_monitor.segment import flags, layout
from shm_monitor.segment.layout import HEADER, Header
from tests.support.surroundings import ROOT

PAGE = ROOT / "docs" / "segment.md"
TEXT = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
TYPES = {"Q": "u64", "I": "u32", "16s": "u8[16]", "128s": "u64[16]"}
HOT_WORDS = {
    "head": layout.HEAD_OFFSET,
    "beat": layout.BEAT_OFFSET,
    "state": layout.STATE_OFFSET,
    "epoch": layout.EPOCH_OFFSET,
    "incarnation": layout.INCARNATION_OFFSET,
    "period": layout.PERIOD_OFFSET,
    "collectors": layout.COLLECTORS_OFFSET,
}

pytestmark = pytest.mark.skipif(not TEXT, reason="the pages of a checkout lie beside it")


def rows(title: str) -> list[list[str]]:
    """Return the cells of the table under the heading *title*, less its head."""
    section = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    lines = next(one for one in section if one.startswith(title)).splitlines()
    table = [line for line in lines if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_the_header_has_these_fields_at_these_offsets() -> None:
    formats = re.findall(r"16s|128s|[QI]", HEADER.format)
    offsets = [struct.calcsize("<" + "".join(formats[:place])) for place in range(len(formats))]
    true = [[f"0x{at:03x}", TYPES[kind], name] for at, kind, name in zip(offsets, formats, Header._fields, strict=True)]

    assert [row[:3] for row in rows("Header")] == true


def test_the_hot_words_are_at_these_offsets() -> None:
    assert {row[2]: int(row[0], 16) for row in rows("Hot words")} == HOT_WORDS


def test_the_pages_begin_at_these_offsets() -> None:
    written = [row[0] for row in rows("# The segment") if row[0].startswith("0x")]

    assert [int(one, 16) for one in written] == [
        0,
        layout.HOT_OFFSET,
        layout.FLAGS_OFFSET,
        layout.FLAGS_OFFSET + layout.FIRST_WORKER_FLAG * layout.FLAG_STRIDE,
        layout.REQUESTS_OFFSET,
        layout.SCHEMA_OFFSET,
    ]


def test_the_bits_of_a_flag_are_these() -> None:
    written = {row[1].split(":")[0].split(",")[0]: int(row[0].split("-")[0]) for row in rows("A flag")}

    assert written["died"] == flags.DIED.bit_length() - 1
    assert written["pressed"] == flags.PRESSED.bit_length() - 1
    assert written["level"] == flags.LEVEL_SHIFT
    assert written["reasons"] == flags.REASONS_SHIFT
    assert written["false readings on purpose"] == flags.INJECTED.bit_length() - 1
    assert written["how much to shed"] == flags.SHED_SHIFT
    assert int(rows("A request")[1][0].split("-")[0]) == flags.ROUND_SHIFT


def test_the_words_for_reasons_and_for_what_is_unknown_are_these() -> None:
    reasons = ", ".join(f"{int(reason)} {str(reason.name).lower()}" for reason in Reason)

    assert f"reasons: {reasons}" in TEXT
    for why in Unknown:
        assert f"{int(why)} {why.text}" in TEXT


def test_the_version_is_this() -> None:
    assert f"This is version {layout.MAJOR}." in TEXT
