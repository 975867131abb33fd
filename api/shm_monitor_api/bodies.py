"""The bodies that are not a Struct of shm_monitor itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import msgspec

import shm_monitor as sm
from shm_monitor.snapshot.episode_log import EpisodeRecord
from shm_monitor.snapshot.structs import Present

MB = 2**20  # memory_usage_mb counts in it, as max_memory_usage_mb does

Float = float | None


class CpuResource(msgspec.Struct, frozen=True):
    """CPU use over what this process may use, in percent; null while unknown."""

    cpu_percent: Float
    timestamp: float

    @classmethod
    def of(cls, snapshot: sm.Snapshot) -> Self:
        """Return the CPU of *snapshot*."""
        return cls(snapshot.cpu.cpu_percent, snapshot.sampled_at)


class MemoryResource(msgspec.Struct, frozen=True):
    """Memory in use in the scope that ends first, in MB of 2^20 bytes; null while unknown."""

    memory_usage_mb: Float
    timestamp: float

    @classmethod
    def of(cls, snapshot: sm.Snapshot) -> Self:
        """Return the memory of *snapshot*."""
        return cls(megabytes(snapshot.memory.usage_bytes), snapshot.sampled_at)


class GpuResource(msgspec.Struct, frozen=True):
    """Utilization and memory in percent, each the mean over the GPUs where it is known; null without a GPU."""

    gpu_percent: Float
    gpu_memory_percent: Float
    timestamp: float

    @classmethod
    def of(cls, snapshot: sm.Snapshot) -> Self:
        """Return the GPUs of *snapshot*."""
        return cls(
            mean(gpu.utilization_percent for gpu in snapshot.gpus),
            mean(gpu.memory_percent for gpu in snapshot.gpus),
            snapshot.sampled_at,
        )


class NetworkResource(msgspec.Struct, frozen=True):
    """Bytes received and sent per second over the interfaces that count; null while unknown."""

    network_usage_bytes_per_second: Float
    timestamp: float

    @classmethod
    def of(cls, snapshot: sm.Snapshot) -> Self:
        """Return the network of *snapshot*."""
        return cls(snapshot.network.usage_bytes_per_second, snapshot.sampled_at)


class Resources(msgspec.Struct, frozen=True):
    """All resources of one sample; null for what is unknown, the time in unix seconds."""

    cpu_percent: Float
    memory_usage_mb: Float
    gpu_percent: Float
    gpu_memory_percent: Float
    network_usage_bytes_per_second: Float
    timestamp: float

    @classmethod
    def of(cls, snapshot: sm.Snapshot) -> Self:
        """Return all resources of *snapshot*."""
        return cls(
            snapshot.cpu.cpu_percent,
            megabytes(snapshot.memory.usage_bytes),
            mean(gpu.utilization_percent for gpu in snapshot.gpus),
            mean(gpu.memory_percent for gpu in snapshot.gpus),
            snapshot.network.usage_bytes_per_second,
            snapshot.sampled_at,
        )


class PresentWorkers(msgspec.Struct, frozen=True):
    """The workers that have presented themselves: what each holds, and what it is asked to give back."""

    workers: list[Present]
    timestamp: float

    @classmethod
    def of(cls, snapshot: sm.Snapshot) -> Self:
        """Return those of *snapshot*."""
        return cls(snapshot.present, snapshot.sampled_at)


class EpisodeEvents(msgspec.Struct, frozen=True):
    """What the log of episodes still has, oldest first: begins, changes of level, ends."""

    episodes: list[EpisodeRecord]


class MetricRow(msgspec.Struct, frozen=True):
    """One number that is measured.

    Args:
        name: as ``/history`` and ``rolled`` call it: ``memory.usage_bytes``, ``gpu:0.utilization_percent``.
        group: the group of ``/snapshot`` that has it.
        instance: which one, where a group has several; else empty.
        field: its name within the group.
        unit: percent, bytes, bytes_per_second, seconds, celsius, watts, count ...
        help: one sentence for people.
        source: the file, call or manual that defines it.
        rolled: true where mean, maximum and slope over the observation period are kept too.
    """

    name: str
    group: str
    instance: str
    field: str
    unit: str
    help: str
    source: str
    rolled: bool


class LimitRow(msgspec.Struct, frozen=True):
    """One limit that the sampler decides on: its name, the metric it looks at, its unit, the UUID of a device."""

    name: str
    metric: str
    unit: str
    device: str


class SchemaTable(msgspec.Struct, frozen=True):
    """Everything that is measured, and everything that is limited."""

    metrics: list[MetricRow]
    limits: list[LimitRow]

    @classmethod
    def of(cls, reader: sm.Reader) -> Self:
        """Return the tables of the sampler that *reader* reads.

        Raises:
            SegmentError: there is none.
        """
        schema = reader.view().schema
        return cls(
            [
                MetricRow(one.name, one.group, one.instance, one.field, one.unit, one.help, one.source, one.rolled)
                for one in schema.metrics
            ],
            [LimitRow(one.name, one.metric, one.unit, one.device) for one in schema.limits],
        )


class Liveness(msgspec.Struct, frozen=True):
    """The ``stale`` event: whether a live sampler stands behind the samples.

    Args:
        stale: true when none does.
        state: live, starting, stale (dead or hung), stopped, retired, absent, incompatible, corrupt or untrusted.
        detail: one sentence where something is wrong, else empty.
        age_seconds: since the sampling loop last turned; null where nothing can be read.
    """

    stale: bool
    state: str
    detail: str
    age_seconds: Float


class Alive(msgspec.Struct, frozen=True):
    """This process answers."""

    status: str = "alive"


class Ready(msgspec.Struct, frozen=True):
    """A live sampler stands behind the answers: the number of its newest sample, and the age of its last turn."""

    sequence: int
    age_seconds: float
    status: str = "ready"


def megabytes(count: int | None) -> float | None:
    """Return *count* bytes in MB of 2^20."""
    return None if count is None else count / MB


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the known *values*, or None when none is known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
