"""Reads one GPU, in a thread of its own."""

from __future__ import annotations

import logging
import math
import time
from concurrent.futures import Future
from typing import NamedTuple

from shm_monitor.collectors.gpu.calls import Caller
from shm_monitor.collectors.gpu.devices import Device
from shm_monitor.collectors.gpu.fields import CALLS, MEMORY, UTILIZATION, Call, Reading, is_split_fault
from shm_monitor.collectors.gpu.nvml import NOT_SUPPORTED, Handle, NvmlFault
from shm_monitor.collectors.gpu.processes import METRICS as PROCESS_METRICS
from shm_monitor.collectors.gpu.processes import ProcessReading, read_processes
from shm_monitor.collectors.gpu.session import Session
from shm_monitor.schema import Metric, Unknown, unknown, why_unknown

_log = logging.getLogger(__name__)

READ_SECONDS = Metric(
    "gpu", "read_seconds", "seconds", "How long this reading of the device took.", "time.perf_counter"
)
METRICS: tuple[Metric, ...] = (*(metric for call in CALLS for metric in call.metrics), *PROCESS_METRICS, READ_SECONDS)
"""What is written for each device, in this order."""

HELD_SECONDS = 5.0  # how long a reading stands while the next one does not come


class DeviceReading(NamedTuple):
    """Everything about one device at one time.

    *values* are those of all metrics of ``CALLS``; *seconds* is NaN when the device did not answer.
    """

    values: tuple[float, ...]
    processes: ProcessReading
    seconds: float

    @property
    def is_readable(self) -> bool:
        """True when any call was answered with a number."""
        return any(not math.isnan(value) for value in self.values)


def unreadable(why: Unknown) -> DeviceReading:
    """Return the reading of a device of which nothing is known."""
    missing = unknown(why)
    count = sum(len(call.metrics) for call in CALLS)
    return DeviceReading((missing,) * count, ProcessReading({}, why), missing)


class DeviceReader:
    """One device: its handle, and the thread that its calls are made in."""

    def __init__(self, session: Session, device: Device) -> None:
        self.device = device
        self._session = session
        self._handle: Handle | None = None
        self._generation = -1
        self._caller: Caller[DeviceReading] = Caller(f"shm-monitor-gpu-{device.instance}")
        self._was_readable = True
        self._newest: tuple[float, DeviceReading] | None = None  # when it came, which may be after it was waited for

    @property
    def busy(self) -> bool:
        """True while a call of an earlier reading has not come back."""
        return self._caller.busy

    def start(self) -> Future[DeviceReading] | None:
        """Begin a reading; None while an earlier one is stuck."""
        return self._caller.start(self._read_and_keep)

    def finish(self, future: Future[DeviceReading] | None, deadline: float) -> DeviceReading:
        """Return the reading; when it is not there at *deadline* (of ``time.monotonic``), the one before for a while.

        A driver that always takes longer than the deadline has values so; one that hangs is unknown after 5 s.
        """
        try:
            reading = self._held() if future is None else future.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            reading = self._held()
        except Exception:  # noqa: BLE001 (whatever it is, it is of this device alone)
            _log.exception("reading GPU %s failed", self.device.instance)
            reading = unreadable(Unknown.ERROR)
        self._log_change(reading)
        return reading

    def _held(self) -> DeviceReading:
        """Return the newest reading that came, unless that is too long ago."""
        newest = self._newest
        if newest is None or time.monotonic() - newest[0] > HELD_SECONDS:
            return unreadable(Unknown.TIMEOUT)
        return newest[1]

    def close(self) -> None:
        """Let the thread end."""
        self._caller.close()

    def _read_and_keep(self) -> DeviceReading:
        reading = self.read()
        self._newest = time.monotonic(), reading
        return reading

    def read(self) -> DeviceReading:
        """Ask every call once, and return the answers; takes as long as the driver does."""
        started = time.perf_counter()
        try:
            handle = self._current_handle()
        except NvmlFault as fault:
            return unreadable(fault.why)
        readings = [self._ask(call, handle) for call in CALLS]
        values = tuple(value for call, reading in zip(CALLS, readings, strict=True) for value in reading.values)
        processes = read_processes(self._session.nvml, handle)
        reading = DeviceReading(values, processes, time.perf_counter() - started)
        if not reading.is_readable:
            self._handle = None
            return reading
        return reading._replace(values=self._explained(readings))

    def _current_handle(self) -> Handle:
        if self._handle is None or self._generation != self._session.generation:
            self._generation = self._session.generation
            self._handle = None
            self._handle = self.device.handle(self._session.nvml)
        return self._handle

    def _ask(self, call: Call, handle: Handle) -> Reading:
        """Ask one call; not for the utilization under MIG, where some drivers answer a misleading 0 (dask#8739)."""
        if call is UTILIZATION and (self.device.mig or self.device.split):
            return Reading((unknown(Unknown.MIG),))
        return call.read(self._session.nvml, handle)

    def _explained(self, readings: list[Reading]) -> tuple[float, ...]:
        """Return the values, with the reasons that only the whole device explains."""
        return tuple(
            value
            for call, reading in zip(CALLS, readings, strict=True)
            for value in self._explain(call, reading).values
        )

    def _explain(self, call: Call, reading: Reading) -> Reading:
        if self.device.mig and is_split_fault(reading.fault):
            return Reading((unknown(Unknown.MIG),) * len(reading.values))
        if call is MEMORY and reading.fault is not None and reading.fault.code == NOT_SUPPORTED:
            return Reading((unknown(Unknown.UNIFIED_MEMORY),) * len(reading.values))
        return reading

    def _log_change(self, reading: DeviceReading) -> None:
        """Say it once when a device goes or comes back."""
        readable = reading.is_readable
        if readable != self._was_readable:
            self._was_readable = readable
            state = "is back" if readable else f"cannot be read: {why_unknown(reading.values[-1]).text}"
            _log.warning("GPU %s (%s) %s", self.device.instance, self.device.uuid or "no UUID", state)
