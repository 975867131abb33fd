"""NVIDIA GPUs through NVML.

Source: NVML of the driver, by the distribution nvidia-ml-py. Cost: bench/gpu_check.py prints it for a machine; the two
PCIe calls measure for 20 ms each, in the device's thread, and use no CPU meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shm_monitor.collectors.base import Array
from shm_monitor.collectors.gpu.choice import choose, choose_visible
from shm_monitor.collectors.gpu.devices import Device, list_devices
from shm_monitor.collectors.gpu.nvml import (
    IMPORT,
    LIBRARY_NOT_FOUND,
    UNKNOWN,
    Nvml,
    NvmlFault,
    shadowing_distribution,
)
from shm_monitor.collectors.gpu.processes import PidNamespace, process_values
from shm_monitor.collectors.gpu.reader import METRICS, DeviceReader, DeviceReading
from shm_monitor.collectors.gpu.session import Session
from shm_monitor.errors import ConfigError, install_command
from shm_monitor.process_names import ProcessName, name_of
from shm_monitor.schema import Metric, Unknown, unknown, why_unknown

_LOST = (Unknown.GPU_LOST, Unknown.ERROR)


class GpuCollector:
    """Every chosen GPU and MIG instance, read at once, each in a thread of its own.

    A call that hangs costs its device alone: that is unknown (``timeout``), is not asked again before the call comes
    back, and the others are read on. Without a GPU there are no metrics, and ``facts["unavailable"]`` says why.

    Args:
        session: open, or None when nothing is to be read.
        devices: what to read, as they were found; the metrics stay theirs for the collector's life.
        facts: driver, and why there is nothing, if so.
        interval_seconds: own cadence, or None for every sample.
        timeout_seconds: how long one ``collect`` waits for its slowest device.
        proc_root: a /proc that translates pids.
    """

    name = "gpu"
    threaded = True

    def __init__(
        self,
        session: Session | None,
        devices: Sequence[Device],
        facts: Mapping[str, str],
        *,
        interval_seconds: float | None = None,
        timeout_seconds: float = 1.0,
        proc_root: Path = Path("/proc"),
    ) -> None:
        self.interval_seconds = interval_seconds
        self.metrics: Sequence[Metric] = tuple(
            metric._replace(instance=device.instance) for device in devices for metric in METRICS
        )
        self.facts: Mapping[str, Any] = {**facts, "devices": [device.facts() for device in devices]}
        self._session = session
        self._readers = [DeviceReader(session, device) for device in devices] if session is not None else []
        self._timeout_seconds = timeout_seconds
        self._proc, self._pids = str(proc_root), PidNamespace(proc_root)
        self.processes: Mapping[int, ProcessName] = {}

    def collect(self, out: Array) -> None:
        """Write one reading of every device into *out*, shape (len(metrics),); returns within the timeout."""
        if self._session is None or not self._readers:
            return
        deadline = time.monotonic() + self._timeout_seconds
        if not self._session.ready(deadline, in_flight=self._is_any_busy()):
            out[:] = unknown(Unknown.TIMEOUT)
            return
        readings = self._read_all(deadline)
        self._session.report(
            readable_count=sum(reading.is_readable for reading in readings),
            lost_count=sum(_is_lost(reading) for reading in readings),
        )
        out[:] = self._values(readings)

    def close(self) -> None:
        """Let the threads end and close NVML; waits at most the timeout, and not for a call that hangs."""
        for reader in self._readers:
            reader.close()
        if self._session is not None:
            self._session.close(self._timeout_seconds, in_flight=self._is_any_busy())
        self._readers, self._session = [], None

    def _is_any_busy(self) -> bool:
        return any(reader.busy for reader in self._readers)

    def _read_all(self, deadline: float) -> list[DeviceReading]:
        futures = [reader.start() for reader in self._readers]
        return [reader.finish(future, deadline) for reader, future in zip(self._readers, futures, strict=True)]

    def _values(self, readings: Sequence[DeviceReading]) -> list[float]:
        ours = self._pids.ours({pid for reading in readings for pid in reading.processes.processes})
        known = self.processes
        self.processes = {here: known.get(here) or name_of(pid, self._proc) for pid, here in ours.items()}
        return [
            value
            for reading in readings
            for value in (*reading.values, *process_values(reading.processes, ours), reading.seconds)
        ]


def discover_gpu(  # noqa: PLR0913 (an edge: each part that a test or a machine replaces is an argument)
    *,
    gpus: str | Sequence[str | int] | None = None,
    cuda_visible_devices: str | None = None,
    cuda_device_order: str = "FASTEST_FIRST",
    interval_seconds: float | None = None,
    timeout_seconds: float = 1.0,
    open_timeout_seconds: float = 20.0,
    library: str | None = None,
    proc_root: Path = Path("/proc"),
    clock: Callable[[], float] = time.monotonic,
) -> GpuCollector:
    """Open NVML and return the collector of the chosen GPUs; of none, with the reason in its facts, when that fails.

    Args:
        gpus: indices, MIG instances (``0:1``) or UUIDs, as ``"0,2"`` or a sequence; ``all``, ``none``; None: see next.
        cuda_visible_devices: the variable's value, obeyed as CUDA would; None: every GPU.
        cuda_device_order: the value of ``CUDA_DEVICE_ORDER``.
        interval_seconds: own cadence, or None for every sample.
        timeout_seconds: how long one reading may take.
        open_timeout_seconds: how long the driver may take to open (1.5 s for each GPU without persistence mode).
        library: path of libnvidia-ml.so.1 where the linker does not find it.
        proc_root: a /proc that translates pids.
        clock: seconds; times the attempts to open NVML again.

    Raises:
        ConfigError: *gpus* names a device that is not here (the message lists those that are), or CUDA's order is
            needed and not known. Not raised where NVML is missing: then nothing can be checked.
    """
    session = Session(Nvml(library), clock=clock)

    def look() -> tuple[list[Device], str]:
        return list_devices(session.nvml), _driver_version(session.nvml)

    try:
        found, driver = session.open(look, timeout_seconds=open_timeout_seconds)
    except NvmlFault as fault:
        session.close(0.0, in_flight=True)
        return GpuCollector(None, (), {"driver": "", "unavailable": _sentence(fault)})
    try:
        devices = _chosen(found, gpus, cuda_visible_devices, cuda_device_order)
    except ConfigError:
        session.close(timeout_seconds, in_flight=False)
        raise
    why = "" if devices else "NVML finds no GPU" if not found else "none of the GPUs is chosen"
    facts = {"driver": driver, "unavailable": why}
    return GpuCollector(
        session,
        devices,
        facts,
        interval_seconds=interval_seconds,
        timeout_seconds=timeout_seconds,
        proc_root=proc_root,
    )


def _chosen(
    found: list[Device], gpus: str | Sequence[str | int] | None, visible: str | None, device_order: str
) -> list[Device]:
    if gpus is not None:
        return choose(found, gpus)
    return found if visible is None else choose_visible(found, visible, device_order=device_order)


def _driver_version(nvml: Nvml) -> str:
    try:
        return str(nvml.call("nvmlSystemGetDriverVersion"))
    except NvmlFault:
        return ""


def _sentence(fault: NvmlFault) -> str:
    """Return what a person can do about NVML not opening."""
    if fault.code == UNKNOWN and (in_the_way := shadowing_distribution()):
        return f"{fault}; {in_the_way}"
    if fault.call == IMPORT:
        return f"nvidia-ml-py is not installed; try: {install_command('sampler')}"
    if fault.code == LIBRARY_NOT_FOUND:
        return f"{fault}: no NVIDIA driver here, or a container started without it (docker run --gpus all)"
    return f"{fault}; try: nvidia-smi"


def _is_lost(reading: DeviceReading) -> bool:
    return not reading.is_readable and any(why_unknown(value) in _LOST for value in reading.values)
