"""What one snapshot costs a worker, once it has the bytes of the slot, for about 64 metrics."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from shm_monitor.schema import Unknown, unknown
from shm_monitor.snapshot.decoder import Decoder
from shm_monitor.snapshot.structs import encode_json, encode_msgpack
from tests.support.samples import MONO_NS, USUAL, WORKERS, sample_of, schema_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

    from shm_monitor.schema import Schema
    from shm_monitor.snapshot.structs import Snapshot

SMALL = schema_of(USUAL)  # 65 metrics
LARGE = schema_of(USUAL, WORKERS, {"workers": " ".join(f"{at}/pid# {at}/rss_bytes#" for at in range(2, 16))})
ABSENT = dict.fromkeys(("cpu.steal_percent", "stall.cpu_full_percent"), unknown(Unknown.NOT_SUPPORTED))


def reading_of(schema: Schema, sample_count: int) -> Callable[[], Snapshot]:
    """Return a call that decodes one of *sample_count* samples in turn."""
    decoder = Decoder(schema)
    samples = [sample_of(schema, ABSENT, default=1e6 + at, number=at + 1) for at in range(sample_count)]
    turn = itertools.cycle(samples).__next__
    words = [MONO_NS - 10**8, 0] * len(schema.collectors)

    def read() -> Snapshot:
        return decoder.snapshot(
            turn(), name="bench", now_ns=MONO_NS + 10**8, interval_ns=10**9, stale=False, collectors=words
        )

    return read


def empty() -> None:
    """What any Python function costs."""


@pytest.mark.benchmark(group="decode a snapshot")
def bench_an_empty_function(benchmark: BenchmarkFixture) -> None:
    """The unit of this group: how fast is the interpreter here?"""
    benchmark(empty)


@pytest.mark.benchmark(group="decode a snapshot")
@pytest.mark.parametrize("schema", [SMALL, LARGE], ids=["65 metrics", "103 metrics"])
@pytest.mark.parametrize("sample_count", [1, 2], ids=["the same sample", "a new sample"])
def bench_decode_a_snapshot(benchmark: BenchmarkFixture, schema: Schema, sample_count: int) -> None:
    """What does a snapshot cost a worker that asks more often than the sampler samples, and one that does not?"""
    assert benchmark(reading_of(schema, sample_count)).cpu.steal_percent is None


@pytest.mark.benchmark(group="encode a snapshot")
@pytest.mark.parametrize("encode", [encode_json, encode_msgpack], ids=["json", "msgpack"])
def bench_encode_a_snapshot(benchmark: BenchmarkFixture, encode: Callable[[Snapshot], bytes]) -> None:
    """What does a snapshot cost the API?"""
    assert len(benchmark(encode, reading_of(SMALL, 1)())) > 1000


@pytest.mark.benchmark(group="prepare")
def bench_prepare_a_decoder(benchmark: BenchmarkFixture) -> None:
    """What does the first snapshot of a reader cost on top?"""
    benchmark(Decoder, SMALL)
