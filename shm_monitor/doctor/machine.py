"""The checks of `shm-monitor doctor` that look at the machine: kernel, cgroups, GPUs, shared memory."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from shm_monitor.errors import install_command
from shm_monitor.schema import why_unknown

if TYPE_CHECKING:
    from shm_monitor.collectors.base import Collector

State = Literal["ok", "warn", "missing"]

_SHM_LEAST_BYTES = 64 << 20  # what containers get by default, and data loaders want as well
_SHM_FREE_LEAST_BYTES = 8 << 20  # the default history of 300 samples takes 1 to 3 MiB
_SLOW_CLOCKS = frozenset({"hpet", "acpi_pm", "jiffies", "refined-jiffies"})
_SUBSET = "/proc shows only processes (subset=pid; systemd: ProcSubset=pid): mount it whole, or set ProcSubset=all"
_NO_PSI = "the kernel has no PSI, or it is off: boot with psi=1 (CONFIG_PSI)"
_GPU_TIMEOUT_SECONDS = 20.0  # 1.5 s for each GPU without persistence mode


class Check(NamedTuple):
    """One thing that was looked at.

    Args:
        name: what.
        state: ``ok``; ``warn``: works, less well; ``missing``: not to be had here.
        found: what there is.
        advice: what to do about it; empty where nothing needs to be done.
        essential: without it no sampler runs at all.
    """

    name: str
    state: State
    found: str
    advice: str = ""
    essential: bool = False


def check_cgroup(proc: Path, sys: Path) -> Check:
    """Look up which hierarchies are mounted, and where this process is in them."""
    try:
        mounts, membership = (
            os.fsdecode((proc / "self" / file).read_bytes()).removesuffix("\n").split("\n")  # a name may hold any other
            for file in ("mountinfo", "cgroup")
        )
    except OSError as error:
        advice = f"a sampler measures nothing without it: mount -t proc proc {proc}"
        return Check("cgroup", "missing", f"{proc}: {error.strerror}", advice, essential=True)
    kinds = {line.rpartition(" - ")[2].partition(" ")[0] for line in mounts}
    version = {(True, True): "v1 and v2", (True, False): "v1", (False, True): "v2"}.get(
        ("cgroup" in kinds, "cgroup2" in kinds), "none mounted"
    )
    paths = ", ".join(dict.fromkeys(line.split(":", 2)[-1] for line in membership))
    if version == "none mounted":
        advice = "limits of a container are not seen: mount /sys/fs/cgroup (read-only is enough)"
        return Check("cgroup", "warn", f"{version}; path {paths or 'none'}", advice)
    return Check("cgroup", "ok", f"{version} at {sys}/fs/cgroup; path {paths}")


def check_memory_scope(proc: Path, sys: Path) -> Check:
    """Read the memory once as a sampler does: which limit binds, and what is used of it."""

    def read() -> Check:
        from shm_monitor.collectors.cgroup.scope import Scope
        from shm_monitor.collectors.files import Roots
        from shm_monitor.collectors.memory import MemoryCollector

        collector = MemoryCollector(Scope.parse("auto"), Roots(str(proc), str(sys)))
        values = _collected(collector)
        usage, capacity, scope = (values[key] for key in ("usage_bytes", "capacity_bytes", "scope"))
        if isinstance(usage, str) or isinstance(capacity, str) or isinstance(scope, str):
            return Check("memory", "warn", f"usage unknown: {usage}", "the limit for memory is not watched")
        scopes = collector.facts["scopes"]
        found = f"{usage / 2**20:,.0f} of {capacity / 2**20:,.0f} MB in use; binding limit: {scopes[int(scope)]}"
        return Check("memory", "ok", found)

    return _guarded("memory", read)


def check_cpu_scope(proc: Path, sys: Path) -> Check:
    """Read how many CPUs this process may use."""

    def read() -> Check:
        from shm_monitor.collectors.cgroup.scope import Scope
        from shm_monitor.collectors.cpu import CpuCollector
        from shm_monitor.collectors.files import Roots

        collector = CpuCollector(Scope.parse("auto"), Roots(str(proc), str(sys)))
        values = _collected(collector)
        effective, count = values["effective_count"], values["count"]
        if isinstance(effective, str) or isinstance(count, str):
            return Check("cpu", "warn", f"number of CPUs unknown: {effective}", "the limit for CPU is not watched")
        return Check("cpu", "ok", f"{effective:g} of {count:g} CPUs may be used")

    return _guarded("cpu", read)


def check_stall(proc: Path) -> Check:
    """Say whether the kernel counts pressure stalls."""
    try:
        (proc / "pressure/memory").read_text()
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EPERM}:
            return Check("pressure stall", "warn", "no permission", "the container hides /proc/pressure")
        subset = (proc / "self").exists() and not (proc / "stat").exists()
        return Check("pressure stall", "warn", "none", _SUBSET if subset else _NO_PSI)
    return Check("pressure stall", "ok", f"{proc}/pressure")


def check_gpu(library: str | None, proc: Path) -> Check:
    """Open NVML as a sampler does, and name driver and devices."""

    def read() -> Check:
        from shm_monitor.collectors.gpu.collector import discover_gpu

        collector = discover_gpu(library=library, proc_root=proc, open_timeout_seconds=_GPU_TIMEOUT_SECONDS)
        facts = dict(collector.facts)
        collector.close()
        if facts["unavailable"]:
            return Check("gpu", "missing", facts["unavailable"], "nothing to do where there is no NVIDIA GPU")
        names = [f"{device['instance']} {device['name']}" for device in facts["devices"]]
        return Check("gpu", "ok", f"driver {facts['driver']}: {', '.join(names)}")

    return _guarded("gpu", read)


def check_shadowing() -> Check:
    """Say whether another distribution stands before nvidia-ml-py when ``import pynvml`` is looked up."""

    def read() -> Check:
        from shm_monitor.collectors.gpu.nvml import shadowing_distribution

        found, _, advice = shadowing_distribution().partition("; try: ")
        return Check("pynvml", "warn" if found else "ok", found or "nothing shadows nvidia-ml-py", advice)

    return _guarded("pynvml", read)


def check_shared_memory(place: Path) -> Check:
    """Look up size, free space and permissions of the place where segments live."""
    name = "shared memory"
    try:
        space = os.statvfs(place)
    except OSError as error:
        found = f"{place}: {error.strerror}"
        return Check(name, "missing", found, f"mount a tmpfs at {place}", essential=True)
    size, free = space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize
    found = f"{place}: {free / 2**20:,.0f} of {size / 2**20:,.0f} MB free"
    if not os.access(place, os.W_OK | os.X_OK):
        advice = "readers may still attach; a sampler needs to write there: mount it read-write, mode 1777"
        return Check(name, "missing", f"{found}, not writable", advice, essential=True)
    if free < _SHM_FREE_LEAST_BYTES or size < _SHM_LEAST_BYTES:
        return Check(name, "warn", found, "docker run --shm-size=256m, or: shm-monitor clean")
    return Check(name, "ok", found)


def check_clock(sys: Path) -> Check:
    """Look up the clock source: a slow one makes each reading of the time a system call."""
    try:
        source = (sys / "devices/system/clocksource/clocksource0/current_clocksource").read_text().strip()
    except OSError:
        return Check("clock source", "warn", "unknown", "nothing to do; containers may hide it")
    if source in _SLOW_CLOCKS:
        advice = "reading the time takes microseconds; the kernel distrusts the TSC: see its log (dmesg)"
        return Check("clock source", "warn", source, advice)
    return Check("clock source", "ok", source)


def check_compiler_cache(package: Path, chosen: str | None, home_cache: Path) -> Check:
    """Look up where numba may keep what it compiles; the order is numba's own.

    Args:
        package: the directory of the kernels.
        chosen: the value of NUMBA_CACHE_DIR.
        home_cache: the user's cache directory.
    """
    places = ((Path(chosen), "NUMBA_CACHE_DIR"),) if chosen else ((package, "the package"), (home_cache, "the home"))
    for place, called in places:
        if _can_write_below(place):
            return Check("compiler cache", "ok", f"in {called}")
    advice = "each start compiles its kernels again: set NUMBA_CACHE_DIR to a directory that can be written"
    return Check("compiler cache", "warn", "no place can be written", advice)


def _can_write_below(place: Path) -> bool:
    """Say whether *place*, or the first directory above it that exists, can be written."""
    while not place.exists() and place != place.parent:
        place = place.parent
    return os.access(place, os.W_OK | os.X_OK)


def _collected(collector: Collector) -> dict[str, float | str]:
    """Return one reading of *collector*, by field: a number, or the reason where there is none."""
    import numpy as np

    out = np.empty(len(collector.metrics))
    collector.collect(out)
    collector.close()
    return {
        metric.name.removeprefix(f"{metric.group}."): why_unknown(value).text if math.isnan(value) else value
        for metric, value in zip(collector.metrics, out.tolist(), strict=True)
    }


def _guarded(name: str, read: Callable[[], Check]) -> Check:
    """Return what *read* finds; a missing package or a bug in it is a finding too."""
    try:
        return read()
    except ImportError as error:
        return Check(name, "missing", f"cannot look: {error}", install_command("sampler"))
    except Exception as error:  # noqa: BLE001 - a doctor examines what is broken
        return Check(name, "warn", f"cannot look: {type(error).__name__}: {error}", "please report it, with this text")
