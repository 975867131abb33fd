"""The Structs that a reader hands out: one consistent sample, nested by group, plain data all the way down.

A field that is ``None`` is unknown; ``Snapshot.unavailable`` says why. Bytes and counts are ``int``. The names are
those of the metrics in the schema, where unit, help and source of each can be read (``shm-monitor schema``).
"""

from __future__ import annotations

import msgspec

Integer = int | None
Float = float | None


class Cpu(msgspec.Struct, frozen=True, gc=False):
    """CPU: ``cpu_percent`` is use over what this process may use (``effective_count`` CPUs), the rest is the host's."""

    cpu_percent: Float = None
    host_cpu_percent: Float = None
    count: Integer = None
    effective_count: Float = None
    load_1: Float = None
    load_5: Float = None
    load_15: Float = None
    throttled_percent: Float = None
    iowait_percent: Float = None
    steal_percent: Float = None
    core_percent: dict[str, Float] = {}


class MemoryLevel(msgspec.Struct, frozen=True, gc=False):
    """One level of memory, which *scope* names (``host`` or a cgroup); without a capacity nothing limits it."""

    usage_bytes: Integer = None
    capacity_bytes: Integer = None
    reclaim_events_count: Integer = None
    oom_events_count: Integer = None
    swap_available_bytes: Integer = None
    scope: str | None = None


class Memory(msgspec.Struct, frozen=True, gc=False):
    """Memory of the level that ends first, which *scope* names (``host`` or a cgroup); host, swap and shm beside.

    *levels* are the host, ``0`` (our own cgroup), ``1`` (its parent) and so on.
    """

    usage_bytes: Integer = None
    capacity_bytes: Integer = None
    available_bytes: Integer = None
    usage_percent: Float = None
    host_total_bytes: Integer = None
    host_available_bytes: Integer = None
    host_cached_bytes: Integer = None
    swap_total_bytes: Integer = None
    swap_used_bytes: Integer = None
    swap_in_bytes_per_second: Float = None
    swap_out_bytes_per_second: Float = None
    shm_total_bytes: Integer = None
    shm_used_bytes: Integer = None
    reclaim_events_count: Integer = None
    oom_events_count: Integer = None
    scope: str | None = None
    levels: dict[str, MemoryLevel] = {}


class Stall(msgspec.Struct, frozen=True, gc=False):
    """Pressure stall (PSI): percent of our own window, and seconds since boot."""

    cpu_some_percent: Float = None
    cpu_full_percent: Float = None
    memory_some_percent: Float = None
    memory_full_percent: Float = None
    io_some_percent: Float = None
    io_full_percent: Float = None
    cpu_some_seconds: Float = None
    cpu_full_seconds: Float = None
    memory_some_seconds: Float = None
    memory_full_seconds: Float = None
    io_some_seconds: Float = None
    io_full_seconds: Float = None


class Interface(msgspec.Struct, frozen=True, gc=False):
    """One network interface; the counts are those since it came up."""

    receive_bytes_per_second: Float = None
    transmit_bytes_per_second: Float = None
    receive_bytes_count: Integer = None
    transmit_bytes_count: Integer = None
    drops_count: Integer = None
    errors_count: Integer = None


class Network(msgspec.Struct, frozen=True, gc=False):
    """Received + sent over the interfaces that count, and each interface by name."""

    usage_bytes_per_second: Float = None
    receive_bytes_per_second: Float = None
    transmit_bytes_per_second: Float = None
    interfaces: dict[str, Interface] = {}


class Device(msgspec.Struct, frozen=True, gc=False):
    """One block device; the counts are those since boot."""

    read_bytes_per_second: Float = None
    write_bytes_per_second: Float = None
    read_bytes_count: Integer = None
    write_bytes_count: Integer = None
    busy_percent: Float = None


class Mount(msgspec.Struct, frozen=True, gc=False):
    """Space of one mount point."""

    total_bytes: Integer = None
    used_bytes: Integer = None
    available_bytes: Integer = None


class Disk(msgspec.Struct, frozen=True, gc=False):
    """All block devices together, each by name, and the space of the chosen mount points."""

    read_bytes_per_second: Float = None
    write_bytes_per_second: Float = None
    devices: dict[str, Device] = {}
    mounts: dict[str, Mount] = {}


class GpuProcess(msgspec.Struct, frozen=True, gc=False):
    """One of the largest users of a GPU's memory, by its pid as this pid namespace knows it; named as a Worker is."""

    pid: int
    memory_bytes: Integer = None
    name: str = ""
    user: str = ""


class Gpu(msgspec.Struct, frozen=True, gc=False):
    """One GPU or MIG instance.

    Args:
        instance: what names it in metrics and limits: the NVML index, ``0:1`` for a MIG instance.
        index: the NVML index of the device.
        memory_kind: ``dedicated``, or ``unified`` where it shares the memory of the host.
        mig: true for a MIG instance.
        throttle_reasons: why the clocks are held down; empty when nothing holds them.
        processes: the largest users of its memory, as far as they can be told.
    """

    instance: str
    index: Integer = None
    uuid: str = ""
    name: str = ""
    memory_kind: str = ""
    mig: bool = False
    utilization_percent: Float = None
    memory_used_bytes: Integer = None
    memory_total_bytes: Integer = None
    memory_percent: Float = None
    temperature_celsius: Float = None
    power_watts: Float = None
    power_limit_watts: Float = None
    sm_clock_mhz: Float = None
    memory_clock_mhz: Float = None
    ecc_corrected_count: Integer = None
    ecc_uncorrected_count: Integer = None
    pcie_receive_bytes_per_second: Float = None
    pcie_transmit_bytes_per_second: Float = None
    processes_count: Integer = None
    unattributed_memory_bytes: Integer = None
    throttle_reasons: tuple[str, ...] | None = None
    processes: list[GpuProcess] = []


class Worker(msgspec.Struct, frozen=True, gc=False):
    """One process of the tree under the sampler's owner.

    Args:
        name: its script or module (``train.py``, ``-m torch.distributed.run``, ``spawn_main of train.py``), else its
            program; ours begin with ``shm-monitor``. No arguments, for they may be secrets; empty where unknown.
        user: whose it is, where it is not of the sampler's user; else empty.
    """

    pid: int
    cpu_percent: Float = None
    rss_bytes: Integer = None
    uss_bytes: Integer = None
    pss_bytes: Integer = None
    name: str = ""
    user: str = ""


class Workers(msgspec.Struct, frozen=True, gc=False):
    """The process tree under the sampler's owner: the sum, and its largest processes by resident memory."""

    count: Integer = None
    cpu_percent: Float = None
    rss_bytes: Integer = None
    pss_bytes: Integer = None
    processes: list[Worker] = []


class Present(msgspec.Struct, frozen=True, gc=False):
    """One worker that has presented itself (``attach(present=True)``).

    Args:
        slot: its own; the flag of the segment with that number is about its part alone.
        pid: as the process that took this snapshot knows it; 0 where it cannot.
        name: its script or module, as that of a Worker; empty where unknown.
        weight: its fair share is in proportion to it.
        held_bytes: what it holds above what it had when it presented itself; as old as ten seconds while calm.
        share: held_bytes over a fair share; 1 is fair.
        request_bytes: what it is asked to give back now; 0 for nothing. limit is of what: memory, or that of a GPU
            (``gpu-memory:0``), of which held_bytes and share then are.
        round_number: which round asked it last, modulo 2**16; 0 before the first.
        answered_round: which it has answered last; shed_bytes is what it gave back then.
        in_vain_count: how often in a row asking it had no effect; one that does not react is passed over for a minute.
    """

    slot: int
    pid: int
    weight: float
    held_bytes: int
    share: float
    request_bytes: int
    limit: str
    round_number: int
    answered_round: int
    shed_bytes: int
    in_vain_count: int
    name: str = ""


class CollectorState(msgspec.Struct, frozen=True, gc=False):
    """How one collector is doing: seconds since its last success (None before the first), failures since the start.

    ``duration_seconds`` is how long its newest call took.
    """

    last_ok_age_seconds: Float = None
    errors_count: int = 0
    duration_seconds: Float = None


class Sampler(msgspec.Struct, frozen=True, gc=False):
    """What the sampler itself costs, the seconds since the sample before, and its collectors by name."""

    cpu_percent: Float = None
    cpu_seconds: Float = None
    rss_bytes: Integer = None
    sample_duration_seconds: Float = None
    missed_turns_count: Integer = None
    interval_seconds: Float = None
    collectors: dict[str, CollectorState] = {}


class LimitState(msgspec.Struct, frozen=True, gc=False):
    """One limit and what it says now.

    Args:
        limit: its name, as ``attach(watch=...)`` takes it.
        metric: the metric that it looks at; its unit is that of the numbers here.
        level: ok, warn, prune or critical.
        reasons: which of level, forecast, capacity, event and unknown hold now.
        value: the reading of this sample; mean (time-weighted) and maximum are over the observation period.
        limit_value: what ``value`` must not exceed, now.
        target: what a whole period must stay below before the level is over.
        capacity: what there is at all; None for what slows down rather than runs out.
        seconds_to_limit: until the capacity is used up; None where no line leads there, for what slows down rather than
            runs out, and below the target unless it is soon.
        since: when it last came to prune or above, in unix seconds; None while it is below.
        episodes: how often each reason was set since the sampler started.
    """

    limit: str
    metric: str
    level: str = "ok"
    reasons: tuple[str, ...] = ()
    value: Float = None
    mean: Float = None
    maximum: Float = None
    limit_value: Float = None
    target: Float = None
    capacity: Float = None
    seconds_to_limit: Float = None
    since: Float = None
    episodes: dict[str, int] = {}


class Rolled(msgspec.Struct, frozen=True, gc=False):
    """One metric over the observation period, each reading counted once; the slope is in its unit per second."""

    mean: Float = None
    maximum: Float = None
    slope: Float = None


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """One consistent sample.

    Args:
        name: of the sampler.
        sequence: the number of the sample; counts up by one.
        epoch: a random value per sampler incarnation.
        sampled_at: when it was taken, in unix seconds.
        age_seconds: how old it was when it was read.
        interval_seconds: between two samples.
        stale: true when no live sampler stands behind it.
        degraded: true when no newer sample could be read whole, and this is the last good one.
        level: ok, warn, prune or critical: the highest of all limits.
        should_prune: whether the level is prune or above.
        injected: names of the metrics whose readings are false on purpose (``shm-monitor inject``).
        limits: those that are set, in the order of their flags.
        rolled: mean, maximum and slope by metric name (``memory.usage_bytes``, ``gpu:0.utilization_percent``).
        other: metrics that this version has no field for, by metric name.
        present: the workers that have presented themselves, by slot.
        unavailable: why a reading is unknown, by metric name: error, not_supported, mig, unified_memory,
            no_permission, gpu_lost, not_yet_sampled, timeout or disabled. ``not_supported`` also where the sampler
            has no such metric. Without a GPU ``gpu`` says why there is none, in words.
    """

    name: str
    sequence: int
    epoch: int
    sampled_at: float
    age_seconds: float
    interval_seconds: float
    stale: bool
    degraded: bool
    level: str
    should_prune: bool
    injected: tuple[str, ...] = ()
    cpu: Cpu = msgspec.field(default_factory=Cpu)
    memory: Memory = msgspec.field(default_factory=Memory)
    stall: Stall = msgspec.field(default_factory=Stall)
    network: Network = msgspec.field(default_factory=Network)
    disk: Disk = msgspec.field(default_factory=Disk)
    gpus: list[Gpu] = []
    workers: Workers = msgspec.field(default_factory=Workers)
    sampler: Sampler = msgspec.field(default_factory=Sampler)
    limits: list[LimitState] = []
    rolled: dict[str, Rolled] = {}
    other: dict[str, float | int | None] = {}
    unavailable: dict[str, str] = {}
    present: list[Present] = []


def encode_json(snapshot: Snapshot) -> bytes:
    """Return *snapshot* as JSON; the same content as ``encode_msgpack``."""
    return msgspec.json.encode(snapshot)


def encode_msgpack(snapshot: Snapshot) -> bytes:
    """Return *snapshot* as MessagePack; the same content as ``encode_json``."""
    return msgspec.msgpack.encode(snapshot)
