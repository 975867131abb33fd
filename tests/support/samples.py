"""Samples as a sampler would publish them, made by hand: a schema of the usual metrics, and slots of its numbers."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from shm_monitor.schema import TRACK_FIELDS, Limit, Metric, Schema, ordered
from shm_monitor.segment.layout import SLOT_HEAD
from shm_monitor.segment.view import Sample

MONO_NS = 5_000 * 10**9
REALTIME_NS = 1_800_000_000 * 10**9
COLLECTORS = ("cpu", "memory", "network")

# Instance/field; "*" is rolled, "#" whole.
USUAL = {
    "cpu": "cpu_percent* host_cpu_percent* count# effective_count load_1 load_5 load_15 throttled_percent "
    "iowait_percent steal_percent 0/core_percent 1/core_percent",
    "memory": "usage_bytes*# capacity_bytes# available_bytes# usage_percent* scope# host_total_bytes# "
    "host_available_bytes# host_cached_bytes# swap_total_bytes# swap_used_bytes# swap_in_bytes_per_second "
    "swap_out_bytes_per_second shm_total_bytes# shm_used_bytes# reclaim_events_count# oom_events_count# "
    "host/usage_bytes*# host/capacity_bytes# host/scope# host/reclaim_events_count# host/oom_events_count# "
    "host/swap_available_bytes#",
    "stall": "cpu_some_percent cpu_full_percent memory_some_percent memory_full_percent io_some_percent "
    "io_full_percent cpu_some_seconds cpu_full_seconds memory_some_seconds memory_full_seconds io_some_seconds "
    "io_full_seconds",
    "network": "usage_bytes_per_second* receive_bytes_per_second transmit_bytes_per_second "
    "eth0/receive_bytes_per_second eth0/transmit_bytes_per_second eth0/receive_bytes_count# "
    "eth0/transmit_bytes_count# eth0/drops_count# eth0/errors_count#",
    "disk": "read_bytes_per_second write_bytes_per_second vda/read_bytes_per_second vda/write_bytes_per_second "
    "vda/read_bytes_count# vda/write_bytes_count# vda/busy_percent",
    "mount": "/data/total_bytes# /data/used_bytes# /data/available_bytes#",
    "sampler": "cpu_percent cpu_seconds rss_bytes# sample_duration_seconds missed_turns_count# interval_seconds "
    "cpu/errors_count#",
}
WORKERS = {
    "workers": "count# cpu_percent rss_bytes# pss_bytes# 0/pid# 0/cpu_percent 0/rss_bytes# 1/pid# 1/cpu_percent "
    "1/rss_bytes#"
}
GPU = {
    "gpu": "0/utilization_percent* 0/memory_used_bytes*# 0/memory_total_bytes# 0/memory_percent* "
    "0/temperature_celsius 0/power_watts 0/power_limit_watts 0/sm_clock_mhz 0/memory_clock_mhz 0/throttle_reasons# "
    "0/ecc_corrected_count# 0/ecc_uncorrected_count# 0/pcie_receive_bytes_per_second "
    "0/pcie_transmit_bytes_per_second 0/processes_count# 0/process_0_pid# 0/process_0_memory_bytes# "
    "0/process_1_pid# 0/process_1_memory_bytes# 0/unattributed_memory_bytes#"
}
GPU_FACTS = {"instance": "0", "index": 0, "uuid": "GPU-6f2c", "name": "H200", "memory_kind": "dedicated", "mig": False}
FACTS = {"memory": {"scopes": ["host", "/job"]}, "gpu": {"devices": [GPU_FACTS], "unavailable": ""}}
MEMORY = Limit("memory", "memory.usage_bytes", "bytes")


def schema_of(
    *tables: Mapping[str, str],
    limits: Sequence[Limit] = (MEMORY,),
    facts: Mapping[str, object] = FACTS,
    track_fields: tuple[str, ...] = TRACK_FIELDS,
) -> Schema:
    """Return the schema of *tables*, the rolled metrics first."""
    words = [(group, word) for table in tables for group, text in table.items() for word in text.split()]
    metrics = [_metric(group, word) for group, word in words]
    return Schema(tuple(metrics[at] for at in ordered(metrics)), tuple(limits), COLLECTORS, dict(facts), track_fields)


def _metric(group: str, word: str) -> Metric:
    instance, _, field = word.rpartition("/")
    return Metric(group, field.rstrip("*#"), "", "", "", instance, integer="#" in field, rolled="*" in field)


def sample_of(
    schema: Schema,
    values: Mapping[str, float],
    *,
    default: float = 1.0,
    statistics: Mapping[str, tuple[float, float, float]] | None = None,
    tracks: Mapping[str, Mapping[str, float]] | None = None,
    number: int = 7,
    verdict: int = 0,
) -> Sample:
    """Return a sample of *schema*.

    Args:
        values: by metric name; *default* for the others.
        statistics: mean, maximum and slope by metric name; 0 for the others.
        tracks: columns by limit; 0 for the others.
    """
    rolled = [(statistics or {}).get(metric.name, (0.0, 0.0, 0.0)) for metric in schema.metrics[: schema.rolled_count]]
    numbers = [values.get(metric.name, default) for metric in schema.metrics]
    numbers += [row[part] for part in range(3) for row in rolled]
    numbers += [
        (tracks or {}).get(limit.name, {}).get(name, 0.0) for limit in schema.limits for name in schema.track_fields
    ]
    head = SLOT_HEAD.pack(number, 9, MONO_NS, REALTIME_NS, verdict)
    return Sample(
        number, 9, MONO_NS, REALTIME_NS, verdict, head + struct.pack(f"<{len(numbers)}d", *numbers) + bytes(16)
    )
