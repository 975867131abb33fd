"""What can be measured here: ``discover`` makes the collectors that are asked for, each of them one source.

They import nothing of ours but ``schema``, ``process_names``, ``interpreter`` and ``errors``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from shm_monitor.collectors.base import Collector
from shm_monitor.collectors.cgroup.scope import Scope
from shm_monitor.collectors.cpu import CpuCollector
from shm_monitor.collectors.disk import DiskCollector, MountCollector
from shm_monitor.collectors.files import Roots
from shm_monitor.collectors.memory import MemoryCollector
from shm_monitor.collectors.network import NetworkCollector
from shm_monitor.collectors.stall import StallCollector
from shm_monitor.collectors.workers import WorkersCollector
from shm_monitor.errors import ConfigError

__all__ = ["Collector", "Roots", "discover"]

ENTRY_POINTS = "shm_monitor.collectors"
"""The group of entry points under which an installed package names collectors of its own."""


_ATTRIBUTES = ("name", "threaded", "interval_seconds", "metrics", "facts", "collect", "close")


class Options(NamedTuple):
    """What the built-in collectors need to know.

    Args:
        scope: whose memory and CPU limits hold.
        interfaces: names or shell patterns of those that count in the network totals; none: those with hardware,
            else all but loopback.
        mounts: file systems whose space is shown.
        gpus: indices or UUIDs of the devices to watch; None is all of them.
        gpu_interval: seconds between two looks at the devices.
        cuda_visible_devices: the value of CUDA_VISIBLE_DEVICES to obey, None to ignore it.
        cuda_device_order: the value of CUDA_DEVICE_ORDER, by which the indices there count.
        owner_pid: the process whose tree is listed under workers; None: no such collector.
        roots: where /proc and /sys are.
        clock: monotonic nanoseconds.
    """

    scope: Scope
    interfaces: Sequence[str]
    mounts: Sequence[str]
    gpus: Sequence[int | str] | None
    gpu_interval: float | None
    cuda_visible_devices: str | None
    cuda_device_order: str
    owner_pid: int | None
    roots: Roots
    clock: Callable[[], int]


def _cpu(of: Options) -> Collector:
    if _has_proc(of.roots):
        return CpuCollector(of.scope, of.roots, clock=of.clock)
    from shm_monitor.collectors import portable

    return portable.PortableCpuCollector()


def _memory(of: Options) -> Collector:
    if _has_proc(of.roots):
        return MemoryCollector(of.scope, of.roots, clock=of.clock)
    from shm_monitor.collectors import portable

    return portable.PortableMemoryCollector()


def _network(of: Options) -> Collector:
    if _has_proc(of.roots):
        return NetworkCollector(of.interfaces, of.roots, clock=of.clock)
    from shm_monitor.collectors import portable

    return portable.PortableNetworkCollector(of.interfaces, clock=of.clock)


def _workers(of: Options) -> list[Collector]:
    if of.owner_pid is None or not _has_proc(of.roots):
        return []
    return [WorkersCollector(of.owner_pid, of.roots, clock=of.clock)]


def _gpu(of: Options) -> Collector:
    from shm_monitor.collectors.gpu.collector import discover_gpu  # only here: it loads a driver's library

    return discover_gpu(
        gpus=of.gpus,
        interval_seconds=of.gpu_interval,
        cuda_visible_devices=of.cuda_visible_devices,
        cuda_device_order=of.cuda_device_order,
        proc_root=Path(of.roots.proc),
    )


def _has_proc(roots: Roots) -> bool:
    """Return whether this is Linux; psutil measures elsewhere."""
    return Path(roots.proc, "self").exists()  # all that is sure: with subset=pid, only processes are there


BUILT_IN: dict[str, Callable[[Options], Sequence[Collector]]] = {
    "cpu": lambda of: [_cpu(of)],
    "memory": lambda of: [_memory(of)],
    "stall": lambda of: [StallCollector(of.scope, of.roots, clock=of.clock)] if _has_proc(of.roots) else [],
    "network": lambda of: [_network(of)],
    "disk": lambda of: [DiskCollector(of.roots, clock=of.clock)] if _has_proc(of.roots) else [],
    "workers": _workers,
    "mount": lambda of: [MountCollector(path) for path in dict.fromkeys(of.mounts)],
    "gpu": lambda of: [_gpu(of)],
}
"""Each collector of this package by its name: one line makes a new one known."""


def discover(  # noqa: PLR0913  (one door to every source; all by keyword)
    names: Sequence[str] | None = None,
    *,
    scope: str = "auto",
    interfaces: Sequence[str] = (),
    mounts: Sequence[str] = (),
    gpus: Sequence[int | str] | None = None,
    gpu_interval: float | None = None,
    cuda_visible_devices: str | None = None,
    cuda_device_order: str = "FASTEST_FIRST",
    owner_pid: int | None = None,
    roots: Roots = Roots(),  # noqa: B008  (immutable)
    clock: Callable[[], int] = time.monotonic_ns,
) -> list[Collector]:
    """Return the collectors *names*; each gives unknown where a reading cannot be had here.

    Args:
        names: built-in ones, ``all`` for every one of them, ``-gpu`` for all but that one, the name of an entry point
            of the group ``shm_monitor.collectors``, or ``module:factory``. None is all built-in ones.
        scope: whose memory and CPU limits hold: auto (our own), host, the path of a cgroup, or pid:N.
        interfaces, mounts, gpus, gpu_interval, cuda_visible_devices, cuda_device_order: see ``Options``.
        owner_pid, roots, clock: see there.

    Raises:
        ConfigError: *names* has one that is unknown or has no collector, or two collectors share a name; *scope*
            names a process or a cgroup that cannot be seen from here, *gpus* a device that is not there.
    """
    of = Options(
        Scope.parse(scope),
        interfaces,
        mounts,
        gpus,
        gpu_interval,
        cuda_visible_devices,
        cuda_device_order,
        owner_pid,
        roots,
        clock,
    )
    found: list[Collector] = []
    for name in chosen(names):
        found += BUILT_IN[name](of) if name in BUILT_IN else [further(name)]
    seen = [collector.name for collector in found]
    for name in seen:
        if seen.count(name) > 1:
            raise ConfigError("collectors", ",".join(names or ()), "argument", f"two collectors have the name {name!r}")
    return found


def chosen(names: Sequence[str] | None) -> list[str]:
    """Return the collectors that *names* asks for, each once, without those with a ``-`` before them."""
    without = {name[1:] for name in names or () if name.startswith("-")}
    wanted = [name for name in names or () if not name.startswith("-")] or ["all"]
    every = [one for name in wanted for one in (BUILT_IN if name == "all" else [name])]
    for name in without:
        if name not in every:
            raise ConfigError("collectors", f"-{name}", "argument", f"must leave out one of {', '.join(every)}")
    return [name for name in dict.fromkeys(every) if name not in without]


def further(name: str) -> Collector:
    """Return the collector of a user: an entry point, or ``module:factory``; the factory takes no arguments.

    Raises:
        ConfigError: there is none of this name, or it makes no collector.
    """
    from importlib.metadata import EntryPoint, entry_points  # 4 MB, which only a sampler with further collectors pays

    made = entry_points(group=ENTRY_POINTS)
    if ":" not in name and name not in made.names:
        known = ", ".join([*BUILT_IN, *sorted(made.names)])
        raise ConfigError("collectors", name, "argument", f"must be one of all, {known}, or module:factory")
    try:
        factory = (EntryPoint(name, name, ENTRY_POINTS) if ":" in name else made[name]).load()
    except (ImportError, AttributeError) as error:
        raise ConfigError("collectors", name, "argument", f"must be importable by the sampler: {error}") from None
    collector: Collector = factory()
    lacking = [each for each in _ATTRIBUTES if not hasattr(collector, each)]
    if lacking:
        raise ConfigError("collectors", name, "argument", f"must make a collector; this one lacks {', '.join(lacking)}")
    return collector
