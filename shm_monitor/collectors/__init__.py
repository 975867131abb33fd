"""What can be measured here: ``discover`` returns the collectors, each of them one source.

They import nothing of ours but ``shm_monitor.schema`` and ``shm_monitor.errors``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from shm_monitor.collectors.base import Collector
from shm_monitor.collectors.cgroup.scope import Scope
from shm_monitor.collectors.cpu import CpuCollector
from shm_monitor.collectors.disk import DiskCollector, MountCollector
from shm_monitor.collectors.files import Roots
from shm_monitor.collectors.memory import MemoryCollector
from shm_monitor.collectors.network import NetworkCollector
from shm_monitor.collectors.stall import StallCollector
from shm_monitor.collectors.workers import WorkersCollector

__all__ = ["Collector", "Roots", "discover"]


def discover(  # noqa: PLR0913  (one door to every source; all by keyword)
    *,
    scope: str = "auto",
    interfaces: Sequence[str] = (),
    mounts: Sequence[str] = (),
    gpus: Sequence[int | str] | None = None,
    gpu_interval: float | None = None,
    cuda_visible_devices: str | None = None,
    owner_pid: int | None = None,
    roots: Roots = Roots(),  # noqa: B008  (immutable)
    clock: Callable[[], int] = time.monotonic_ns,
) -> list[Collector]:
    """Return a collector for each source; each gives unknown where a reading cannot be had here.

    Args:
        scope: whose memory and CPU limits hold: auto (our own), host, the path of a cgroup, or pid:N.
        interfaces: names or shell patterns of those that count in the network totals; none: those with hardware,
            else all but loopback.
        mounts: file systems whose space is shown.
        gpus: indices or UUIDs of the devices to watch; None is all of them.
        gpu_interval: seconds between two looks at the devices.
        cuda_visible_devices: the value of CUDA_VISIBLE_DEVICES to obey, None to ignore it.
        owner_pid: the process whose tree is listed under workers; None: no such collector.
        roots: where /proc and /sys are.
        clock: monotonic nanoseconds.

    Raises:
        ConfigError: *scope* names a process or a cgroup that cannot be seen from here, *gpus* a device that is not.
    """
    wanted = Scope.parse(scope)
    if Path(roots.proc, "stat").exists():
        found = _linux(wanted, interfaces, roots, clock=clock)
        if owner_pid is not None:
            found.append(WorkersCollector(owner_pid, roots, clock=clock))
    else:
        found = _portable(interfaces, clock=clock)
    found += [MountCollector(path) for path in dict.fromkeys(mounts)]
    return [*found, *_gpu(gpus, gpu_interval, cuda_visible_devices, roots)]


def _gpu(
    gpus: Sequence[int | str] | None, interval_seconds: float | None, visible: str | None, roots: Roots
) -> list[Collector]:
    """Return the collector of the GPUs; imported only here, as NVML is a driver's library."""
    from shm_monitor.collectors.gpu.collector import discover_gpu

    proc = Path(roots.proc)
    return [discover_gpu(gpus=gpus, interval_seconds=interval_seconds, cuda_visible_devices=visible, proc_root=proc)]


def _linux(scope: Scope, interfaces: Sequence[str], roots: Roots, *, clock: Callable[[], int]) -> list[Collector]:
    return [
        CpuCollector(scope, roots, clock=clock),
        MemoryCollector(scope, roots, clock=clock),
        StallCollector(scope, roots, clock=clock),
        NetworkCollector(interfaces, roots, clock=clock),
        DiskCollector(roots, clock=clock),
    ]


def _portable(interfaces: Sequence[str], *, clock: Callable[[], int]) -> list[Collector]:
    """Return what psutil can tell where there is no /proc; it is not loaded elsewhere."""
    from shm_monitor.collectors import portable

    return [
        portable.PortableCpuCollector(),
        portable.PortableMemoryCollector(),
        portable.PortableNetworkCollector(interfaces, clock=clock),
    ]
