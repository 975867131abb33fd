"""From the bytes of a slot to a Snapshot, in a few microseconds.

Two things make that possible. Which readings are known hardly ever changes from one sample to the next: the decoder
learns that pattern once, works out for it which number goes where, and then only checks that it still holds. And a
worker asks more often than a sampler samples: what belongs to the sample alone is decoded once per sample.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from shm_monitor.schema import Level, Schema, why_unknown
from shm_monitor.segment.flags import LEVEL_SHIFT
from shm_monitor.snapshot.assembly import Assembly, Groups
from shm_monitor.snapshot.limits import LEVEL_TEXTS, limit_readers, value_picks
from shm_monitor.snapshot.pattern import NUMBERS_OFFSET, Pattern, Pick, Pool
from shm_monitor.snapshot.plan import Plan
from shm_monitor.snapshot.structs import CollectorState, LimitState, Present, Rolled, Snapshot

if TYPE_CHECKING:
    from shm_monitor.segment.view import Sample

_PATTERNS_MAX = 64  # some 20 KiB each; more than a handful means that readings come and go at random
_PRUNE = int(Level.PRUNE)


class _Prepared(NamedTuple):
    """Everything that is worked out once per pattern."""

    pattern: Pattern
    assembly: Assembly
    values: list[Pick]
    unavailable: dict[str, str]


class _Decoded(NamedTuple):
    """Everything that belongs to one sample alone."""

    slot: bytes
    prepared: _Prepared
    pool: Pool
    sampled_at: float
    groups: Groups
    limits: list[LimitState]
    rolled: dict[str, Rolled]
    other: dict[str, float | int | None]


class Decoder:
    """Makes Snapshots of the samples of one schema. Safe from any number of threads."""

    def __init__(self, schema: Schema) -> None:
        """Prepare for *schema*; about 1 ms."""
        self._schema = schema
        self._metrics, self._collectors = schema.metrics, schema.collectors
        self._plan = Plan(schema)
        self._integer = [metric.integer for metric in schema.metrics] + [False] * (3 * schema.rolled_count)
        self._limits = limit_readers(schema)
        self._known: dict[object, _Prepared] = {}
        self._last: _Decoded | None = None

    def snapshot(
        self,
        sample: Sample,
        *,
        name: str,
        now_ns: int,
        interval_ns: int,
        stale: bool,
        collectors: Sequence[int],
        injected: tuple[str, ...] = (),
        present: Sequence[Present] = (),
    ) -> Snapshot:
        """Return *sample* as plain data; snapshots of one sample share their parts, which are not to be changed.

        Costs 650 empty function calls for 64 metrics (15 us where one is 23 ns), a quarter of that when the sample is
        the same as the last time (bench/bench_snapshot.py).

        Args:
            sample: of a segment with this schema.
            name: of the sampler.
            now_ns: the monotonic clock.
            interval_ns: between two samples.
            stale: true when no live sampler stands behind it.
            collectors: the words of the hot page: last success (monotonic ns, 0 for never) and errors, of each.
            injected: names of the metrics whose readings are false on purpose.
            present: the workers that have presented themselves.
        """
        decoded = self._last
        if decoded is None or decoded.slot != sample.data:
            decoded = self._last = self._decode(sample, decoded)
        level = sample.verdict >> LEVEL_SHIFT & 3
        _, prepared, pool, sampled_at, groups, limits, rolled, other = decoded
        return Snapshot(
            name,
            sample.number,
            sample.epoch,
            sampled_at,
            (now_ns - sample.mono_ns) * 1e-9 if now_ns > sample.mono_ns else 0.0,
            interval_ns * 1e-9,
            stale,
            sample.degraded,
            LEVEL_TEXTS[level],
            level >= _PRUNE,
            injected,
            *groups,
            prepared.assembly.sampler(pool, self._collector_states(collectors, now_ns)),
            limits,
            rolled,
            other,
            prepared.unavailable,
            list(present),
        )

    def _collector_states(self, words: Sequence[int], now_ns: int) -> dict[str, CollectorState]:
        """Return how each collector is doing; a success after *now_ns* was just now."""
        return {
            name: CollectorState((now_ns - at) * 1e-9 if 0 < at < now_ns else 0.0 if at else None, errors)
            for name, at, errors in zip(self._collectors, words[::2], words[1::2], strict=True)
        }

    def _decode(self, sample: Sample, last: _Decoded | None) -> _Decoded:
        """Return what belongs to *sample* alone; likely its pattern is that of the *last* one."""
        slot = sample.data
        pool = None if last is None else last.prepared.pattern.pool(slot)
        if last is None or pool is None:
            prepared = self._prepare(slot)
            pool = prepared.pattern.pool_of_own(slot)
        else:
            prepared = last.prepared
        build = prepared.assembly
        sampled_at = sample.realtime_ns * 1e-9
        epoch_seconds = sampled_at - sample.mono_ns * 1e-9
        limits = [
            state
            for limit, pick in zip(self._limits, prepared.values, strict=True)
            if (state := limit.read(slot, pick(pool), epoch_seconds)) is not None
        ]
        return _Decoded(
            slot, prepared, pool, sampled_at, build.groups(pool), limits, build.rolled(pool), build.other(pool)
        )

    def _prepare(self, slot: bytes) -> _Prepared:
        """Return what reads samples like *slot*, from those seen before or anew (0.2 ms)."""
        pattern = Pattern(slot, self._integer)
        found = self._known.get(pattern.key)
        if found is not None:
            return found
        assembly = Assembly(self._plan, pattern)
        values = struct.unpack_from(f"<{len(self._metrics)}d", slot, NUMBERS_OFFSET)
        unknown = sorted(at for at in pattern.missing - assembly.unused if at < len(values))
        reasons = {self._metrics[at].name: why_unknown(values[at]).text for at in unknown}
        prepared = _Prepared(pattern, assembly, value_picks(self._schema, pattern), reasons | self._plan.lacking)
        if len(self._known) >= _PATTERNS_MAX:
            self._known = {}
        self._known[pattern.key] = prepared
        return prepared
