"""Damage segments and use them all the same: ``python -m tests.support.corruption_process NAME COUNT SEED``.

A process of its own, because what it looks for is a crash. Every damaged segment is a real object: readers attach to
it, or had attached before; then a publisher starts on it. Nothing but a MonitorError may come out, and nothing may
take long. Prints what was wrong, one line each; exit status 1 if there was anything.
"""

from __future__ import annotations

import copy
import faulthandler
import json
import logging
import os
import random
import struct
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any
from zlib import crc32

from shm_monitor.errors import MonitorError
from shm_monitor.schema import TRACK_FIELDS, Level, Metric
from shm_monitor.segment import layout, names
from shm_monitor.segment.layout import HEADER, SLOT_TAIL, Header
from shm_monitor.worker.attaching import attach
from shm_monitor.worker.reader import Reader
from tests.support.publishing import Bench, small_schema
from tests.support.surroundings import remove_files

WATCHED_CASES = 100
WATCH_SECONDS = 30.0  # far more than so many cases take: one of them hangs
BOUNDARIES = (0, 1, 7, 8, 4095, 4096, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
FLOATS = (0.0, -1.0, 1e308, -1e308, 5e-324, float("inf"), float("-inf"), float("nan"), 2.0**63, 2.0**64)
ODD_JSON: tuple[object, ...] = (None, True, 0, -1, 1e308, "", "x", [], [0], {}, {"a": 1}, "gpu:0", 2**70, "\ud800")

SCHEMA = small_schema()._replace(
    metrics=(
        *small_schema().metrics,
        Metric("memory", "scope", "index", "whose memory counts", "a test", integer=True),
        Metric("gpu", "throttle_reasons", "bits", "what slows it down", "a test", instance="0", integer=True),
    ),
    facts={"memory": {"scopes": ["host", "/pod"]}, "gpu": {"devices": [{"instance": "0", "index": 0}]}},
    track_fields=TRACK_FIELDS,
)

Damage = Callable[[random.Random, bytearray, Header], None]


def field(moments: random.Random, data: bytearray, good: Header) -> None:
    """Put a boundary or random value into one field of the header."""
    header = Header._make(HEADER.unpack_from(data))
    name = moments.choice(Header._fields)
    width = 64 if name not in {"major", "minor", "header_size", "endian_tag"} | _SHORT else 32
    old = getattr(header, name)
    if isinstance(old, bytes):
        HEADER.pack_into(data, 0, *header._replace(**{name: moments.randbytes(len(old))}))  # type: ignore[arg-type]
        return
    new = moments.choice([*BOUNDARIES, old - 1, old + 1, old ^ 1 << moments.randrange(width), moments.getrandbits(64)])
    HEADER.pack_into(data, 0, *header._replace(**{name: new % 2**width}))


_SHORT = {"flag_count", "flag_stride", "worker_count", "first_worker_flag", "slot_count", "slot_stride"}


def word(moments: random.Random, data: bytearray, good: Header) -> None:
    """Put boundary or random values into words of the hot page and the flags."""
    for _ in range(moments.randint(1, 8)):
        offset = moments.choice([layout.HOT_OFFSET, layout.FLAGS_OFFSET]) + 8 * moments.randrange(16)
        struct.pack_into("<Q", data, offset, moments.choice([*BOUNDARIES, moments.getrandbits(64)]))


def noise(moments: random.Random, data: bytearray, good: Header) -> None:
    """Overwrite a few bytes anywhere."""
    for _ in range(moments.randint(1, 4)):
        start = moments.randrange(len(data))
        piece = moments.randbytes(moments.choice([1, 2, 8, 64, 4096]))[: len(data) - start]
        data[start : start + len(piece)] = piece


def cut(moments: random.Random, data: bytearray, good: Header) -> None:
    """Make the object shorter or longer, by bytes or by pages."""
    size = moments.choice([0, 1, HEADER.size - 1, HEADER.size, 4095, 4096, 8192, len(data) - 1, len(data) - 4096])
    if moments.random() < 0.5:
        size = moments.choice([moments.randrange(len(data)), len(data) + 1, len(data) + 4096, 10 * len(data)])
    data[size:] = bytes(max(size - len(data), 0))


def slot(moments: random.Random, data: bytearray, good: Header) -> None:
    """Put odd numbers into samples and seal them again, so that they are believed."""
    for index in range(good.slot_count):
        start = good.ring_offset + index * good.slot_stride
        crc = start + good.slot_stride - SLOT_TAIL.size
        for _ in range(moments.randint(0, 6)):
            offset = moments.randrange(start, crc, 8)
            if offset == start:
                continue
            value = moments.choice(FLOATS)
            raw = struct.pack("<d", value) if moments.random() < 0.7 else moments.randbytes(8)
            data[offset : offset + 8] = raw
        data[crc : crc + 8] = struct.pack("<Q", crc32(data[start:crc]))


def schema(moments: random.Random, data: bytearray, good: Header) -> None:
    """Change the JSON and hash it again, so that it is believed."""
    start = good.schema_offset
    table = json.loads(data[start : start + good.schema_size])
    for _ in range(moments.randint(1, 2)):
        _change(moments, table)
    text = json.dumps(table).encode()[: good.ring_offset - start]
    if moments.random() < 0.1:
        text = moments.randbytes(len(text))
    data[start : good.ring_offset] = text.ljust(good.ring_offset - start, b"\0")
    changed = good._replace(schema_size=len(text), layout_hash=layout.hash_of(text))
    HEADER.pack_into(data, 0, *changed)


def _change(moments: random.Random, node: Any) -> None:
    """Replace, drop or add something somewhere in *node*."""
    while isinstance(node, dict | list) and node:
        key = moments.choice(list(node)) if isinstance(node, dict) else moments.randrange(len(node))
        if moments.random() < 0.6 and isinstance(node[key], dict | list) and node[key]:
            node = node[key]
            continue
        action = moments.random()
        if action < 0.7:
            node[key] = copy.deepcopy(moments.choice(ODD_JSON))
        elif action < 0.85:
            del node[key]
        elif isinstance(node, list):
            node.append(node[key])
        else:
            node[moments.choice(["x", "group", "devices"])] = copy.deepcopy(moments.choice(ODD_JSON))
        return


DAMAGES: tuple[Damage, ...] = (schema, slot, field, word, noise, cut)


def use(reader: Reader) -> None:
    """Call everything that a worker can; a MonitorError is an answer."""
    calls: tuple[Callable[[], object], ...] = (
        reader.should_prune,
        reader.level,
        reader.status,
        reader.age,
        reader.snapshot,
        reader.explain,
        reader.headroom,
        reader.shed_fraction,
        reader.history,
        reader.reasons,
        lambda: reader.wait(0.0),
        lambda: reader.flag_address,
    )
    for call in calls:
        try:
            call()
        except MonitorError:
            continue


class Case:
    """One damaged segment after the other, under one name."""

    def __init__(self, name: str, seed: int) -> None:
        """Make the good segment that is damaged each time."""
        self.name = name
        self.path = names.object_path(name)
        self.seed = seed
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        bench = Bench(name, SCHEMA)
        for number in range(12):
            bench.publish(Level.PRUNE, value=float(number))
        with open(self.path, "rb") as file:
            self.good = file.read()
        bench.close()
        self.header = Header._make(HEADER.unpack_from(self.good))

    def run(self, index: int) -> None:
        """Damage, attach, use; damage what is attached; start a publisher."""
        moments = random.Random(self.seed * 1_000_003 + index)
        if index % WATCHED_CASES == 0:
            faulthandler.dump_traceback_later(WATCH_SECONDS, exit=True)
        damages = moments.sample(DAMAGES, k=moments.choice([1, 1, 1, 2]))
        try:
            self._before(moments, damages)
            self._after(moments, damages)
            self._take_over(moments)
        except Exception:
            kinds = "+".join(damage.__name__ for damage in damages)
            self.wrong.append(f"case {index} ({kinds}): {traceback.format_exc()}")

    def _before(self, moments: random.Random, damages: list[Damage]) -> None:
        data = bytearray(self.good)
        for damage in sorted(damages, key=DAMAGES.index):  # the size last: the others need all of it
            damage(moments, data, self.header)
        self._write(data)
        on_stale = moments.choice(["never", "always", "hold", "raise"])
        try:
            reader = attach(self.name, timeout=0.0, watch=moments.choice([None, ["memory"]]), on_stale=on_stale)  # type: ignore[arg-type]
        except MonitorError as error:
            self.counts[type(error).__name__] += 1
        else:
            self.counts["attached"] += 1
            use(reader)
        with attach(self.name, timeout=0.0, watch=["memory"], required=False) as reader:
            reader.should_prune()  # never raises: a worker that does not require a sampler is never disturbed

    def _after(self, moments: random.Random, damages: list[Damage]) -> None:
        self._write(bytearray(self.good))
        with attach(self.name, timeout=0.0, on_stale="never") as reader:
            data = bytearray(self.good)
            for damage in sorted(damages, key=DAMAGES.index):
                if damage is not cut:  # nobody makes a live object shorter
                    damage(moments, data, self.header)
            with open(self.path, "r+b") as file:
                file.write(data)
            reader.should_prune()
            use(reader)

    def _take_over(self, moments: random.Random) -> None:
        """Start on what ``_after`` left, in half of the cases as an object with a good header."""
        if moments.random() < 0.5:
            with open(self.path, "r+b") as file:
                file.write(self.good[: HEADER.size])
        bench = Bench(self.name, SCHEMA)
        try:
            self.counts["taken over"] += bench.publisher.taken_over
            bench.publish(value=3.0)
            with attach(self.name, timeout=0.0) as reader:
                found = reader.snapshot()
                assert not found.stale
                assert found.other["cpu.m0_bytes"] == 3.0
                reader.history()
                assert reader.status().state == "live"
        finally:
            bench.close()

    def _write(self, data: bytearray) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)


def main(name: str, count: str, seed: str) -> int:
    """Run *count* cases."""
    logging.disable(logging.WARNING)
    case = Case(name, int(seed))
    try:
        for index in range(int(count)):
            case.run(index)
    finally:
        remove_files(name)
    for line in case.wrong[:5]:
        print(line)
    print(f"{len(case.wrong)} of {count} cases wrong; {dict(case.counts)}")
    return int(bool(case.wrong))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
