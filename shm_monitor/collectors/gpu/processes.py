"""Which processes hold memory of a GPU, under the pids that they have where the sampler runs.

Drivers disagree on what a pid means in a container: up to about 545 NVML gives pids of the host, later ones pids of the
caller's namespace (NVIDIA/nvidia-docker#1483, NVIDIA/open-gpu-kernel-modules#614). A number alone therefore proves
nothing, and showing a stranger's memory under the pid of one of our processes is worse than showing none.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from shm_monitor.collectors.gpu.fields import SENTINELS
from shm_monitor.collectors.gpu.nvml import Handle, Nvml, NvmlFault
from shm_monitor.schema import Metric, Unknown, unknown

PROCESSES_SHOWN = 8
_INITIAL_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO, include/linux/proc_ns.h: the same on every Linux
_DEVICE_FILES = ("/dev/nvidia", "/dev/dxg")  # the second is the GPU of WSL

_COMPUTE = ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2")
_GRAPHICS = ("nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v2")

Processes = Mapping[int, float]  # pid as NVML gives it -> bytes, NaN where the driver does not say


def _metric(field: str, unit: str, help_: str) -> Metric:
    return Metric("gpu", field, unit, help_, _COMPUTE[0], integer=True)


METRICS: tuple[Metric, ...] = (
    _metric("processes_count", "count", "Processes that the driver lists, ours or not."),
    *(
        _metric(f"process_{place}_{field}", unit, help_)
        for place in range(PROCESSES_SHOWN)
        for field, unit, help_ in (
            ("pid", "pid", "Pid, in the sampler's pid namespace, of one of the largest; disabled: fewer processes."),
            ("memory_bytes", "bytes", "Memory that it holds on this device."),
        )
    ),
    _metric("unattributed_memory_bytes", "bytes", "Memory of listed processes that are no processes of ours."),
)


class PidNamespace:
    """Translates the pids of NVML into those of the sampler, or refuses.

    Args:
        proc_root: a /proc; that of the host, mounted into a container, lets its NSpid lines translate host pids.
    """

    def __init__(self, proc_root: Path) -> None:
        self._proc = proc_root
        self._own_ids = self._namespaced_ids("self") or []
        self._own_namespace = self._namespace("self")
        depth = len(self._own_ids)
        self._is_initial = self._own_namespace == _INITIAL_NAMESPACE and depth <= 1

    def ours(self, reported: Iterable[int]) -> dict[int, int]:
        """Return our pid of each process in *reported* that is certainly ours; the others are left out.

        In the initial namespace NVML's pids are ours. Elsewhere they are believed only when *every* one of them is a
        process here that has a GPU open: with a driver that speaks host pids that does not happen by chance.
        Cost: one stat per pid; outside the initial namespace a readlink per open file, up to the first of a GPU.
        """
        pids = {pid for pid in reported if pid > 0}
        if not self._is_initial and not all(self._has_gpu_open(pid) for pid in pids):
            return {}
        translated = {pid: self._translate(pid) for pid in pids}
        return {pid: here for pid, here in translated.items() if here is not None}

    def _translate(self, pid: int) -> int | None:
        ids = self._namespaced_ids(str(pid))
        if ids is None:
            return None
        if len(self._own_ids) <= 1:  # this /proc is of our own namespace
            return pid
        is_neighbour = len(ids) == len(self._own_ids) and self._namespace(str(pid)) == self._own_namespace
        return ids[-1] if is_neighbour else None

    def _namespaced_ids(self, who: str) -> list[int] | None:
        """Return the NSpid line (outermost first), [] on a kernel without it, None when there is no such process.

        Source: proc_pid_status(5), NSpid.
        """
        try:
            status = (self._proc / who / "status").read_bytes()
        except OSError:
            return None
        line = next((line for line in status.split(b"\n") if line.startswith(b"NSpid:")), b"")
        return [int(word) for word in line.split()[1:]]

    def _namespace(self, who: str) -> str:
        try:
            return os.readlink(self._proc / who / "ns" / "pid")
        except OSError:  # somebody else's process
            return ""

    def _has_gpu_open(self, pid: int) -> bool:
        try:
            with os.scandir(self._proc / str(pid) / "fd") as entries:
                return any(_target(entry.path).startswith(_DEVICE_FILES) for entry in entries)
        except OSError:
            return False


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:  # closed since the folder was listed
        return ""


class ProcessReading(NamedTuple):
    """The processes of one device, or why they are not known."""

    processes: Processes
    why: Unknown | None = None


def read_processes(nvml: Nvml, handle: Handle) -> ProcessReading:
    """Return compute and graphics processes of *handle* together; a kind that it does not have counts as empty."""
    found: list[Processes] = []
    missing: NvmlFault | None = None
    for functions in (_COMPUTE, _GRAPHICS):
        try:
            found.append(_listed(nvml, functions, handle))
        except NvmlFault as fault:
            if fault.why != Unknown.NOT_SUPPORTED:
                return ProcessReading({}, fault.why)
            missing = fault
    if not found and missing is not None:
        return ProcessReading({}, missing.why)
    return ProcessReading(_merged(found))


def _listed(nvml: Nvml, functions: tuple[str, ...], handle: Handle) -> Processes:
    """Return the processes of one list; one that holds several parts of a split GPU is there several times."""
    total: dict[int, float] = {}
    for process in nvml.newest(functions, handle):
        used = process.usedGpuMemory
        held = unknown(Unknown.NOT_SUPPORTED) if used is None or used in SENTINELS else float(used)
        total[process.pid] = total.get(process.pid, 0.0) + held
    return total


def _merged(lists: list[Processes]) -> Processes:
    """Return one table; a process that computes and draws is in both lists with the same, whole memory."""
    merged: dict[int, float] = {}
    for processes in lists:
        for pid, held in processes.items():
            merged[pid] = max(held, merged[pid]) if pid in merged and not math.isnan(merged[pid]) else held
    return merged


def process_values(reading: ProcessReading, ours: Mapping[int, int]) -> tuple[float, ...]:
    """Return the values of ``METRICS`` for one device; *ours* is from ``PidNamespace.ours``."""
    if reading.why is not None:
        return (unknown(reading.why),) * len(METRICS)
    mine = [(held, ours[pid]) for pid, held in reading.processes.items() if pid in ours]
    strangers = [held for pid, held in reading.processes.items() if pid not in ours]
    mine.sort(key=lambda process: (math.isnan(process[0]), -process[0], process[1]))
    return (
        float(len(reading.processes)),
        *(value for place in range(PROCESSES_SHOWN) for value in _slot(mine, place)),
        _sum_known(strangers),
    )


def _slot(mine: list[tuple[float, int]], place: int) -> tuple[float, float]:
    if place >= len(mine):
        return unknown(Unknown.DISABLED), unknown(Unknown.DISABLED)
    held, pid = mine[place]
    return float(pid), unknown(Unknown.NOT_SUPPORTED) if math.isnan(held) else held


def _sum_known(held: list[float]) -> float:
    """Return the sum of what is known; unknown only when there are processes and nothing is known of any."""
    known = [value for value in held if not math.isnan(value)]
    return sum(known) if known or not held else unknown(Unknown.NOT_SUPPORTED)
