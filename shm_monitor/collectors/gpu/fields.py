"""What is read of each GPU: the table of measurements, call by call, and how a driver's number becomes a reading.

Every call is guarded alone, so that a field a GPU does not have costs only itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from shm_monitor.collectors.gpu.nvml import INVALID_ARGUMENT, NOT_SUPPORTED, Handle, Nvml, NvmlFault
from shm_monitor.schema import Metric, Unknown, unknown

_MEMORY_V2 = 0x0200_0028  # nvml.h, nvmlMemory_v2: version 2, 40 bytes. Version 1 counts reserved memory as used.
_TEMPERATURE_GPU = 0
_CLOCK_SM, _CLOCK_MEMORY = 1, 2
_CORRECTED, _UNCORRECTED = 0, 1
_VOLATILE = 0  # since the driver was loaded; the aggregate counts the life of the board
_PCIE_TRANSMIT, _PCIE_RECEIVE = 0, 1

# What drivers write where they have no number: NVML_VALUE_NOT_AVAILABLE (-1) in 32 and 64 bits, signed and not, and
# DCGM's blank values (dcgm_structs.h: DCGM_INT32_BLANK and DCGM_INT64_BLANK with NOT_FOUND, NOT_SUPPORTED,
# NOT_PERMISSIONED behind them), of which 9223372036854775794 is the one that leaks most often.
SENTINELS = frozenset(
    {-1, 2**32 - 1, 2**64 - 1, 2**63 - 1}
    | {base + step for base in (0x7FFF_FFF0, 0x7FFF_FFFF_FFFF_FFF0) for step in range(4)}
)
_BYTES_MAX = 2.0**50  # a pebibyte on one GPU; everything a float64 holds exactly is far above
_EXACT_MAX = 2.0**53


class Reading(NamedTuple):
    """The answer to one call: one value per metric; a NaN of ``unknown`` where there is none.

    *fault* is the error that the call ended with, if it did.
    """

    values: tuple[float, ...]
    fault: NvmlFault | None = None


class Call(NamedTuple):
    """One call to NVML and the metrics that it answers."""

    metrics: tuple[Metric, ...]
    ask: Callable[[Nvml, Handle], tuple[float, ...]]

    def read(self, nvml: Nvml, handle: Handle) -> Reading:
        """Return the answer; a fault makes these metrics unknown and touches no other."""
        try:
            return Reading(self.ask(nvml, handle))
        except NvmlFault as fault:
            return Reading((unknown(fault.why),) * len(self.metrics), fault)


def checked(value: float, low: float, high: float, *, scale: float = 1.0) -> float:
    """Return *value* * *scale*, or unknown where a driver wrote a sentinel or something outside *low* to *high*."""
    if value in SENTINELS:
        return unknown(Unknown.NOT_SUPPORTED)
    return value * scale if low <= value <= high else unknown(Unknown.ERROR)


def is_split_fault(fault: NvmlFault | None) -> bool:
    """True when *fault* is how NVML says "not of a MIG instance" (or of a GPU that is split into them)."""
    return fault is not None and fault.code in (NOT_SUPPORTED, INVALID_ARGUMENT)


def memory_of(nvml: Nvml, handle: Handle) -> tuple[float, float]:
    """Return used and total bytes as the driver writes them, unchecked.

    Raises:
        NvmlFault: NOT_SUPPORTED where the GPU shares the memory of the host (GB10, Jetson).
    """
    try:
        memory = nvml.call("nvmlDeviceGetMemoryInfo", handle, _MEMORY_V2)
    except NvmlFault as fault:
        if not fault.has_older:
            raise
        memory = nvml.call("nvmlDeviceGetMemoryInfo", handle)  # before driver 510
    return memory.used, memory.total


def _memory(nvml: Nvml, handle: Handle) -> tuple[float, ...]:
    raw_used, raw_total = memory_of(nvml, handle)
    if raw_total == 0:  # how some drivers say that there is only the memory of the host
        return (unknown(Unknown.UNIFIED_MEMORY),) * 3
    used, total = checked(raw_used, 0, _BYTES_MAX), checked(raw_total, 1, _BYTES_MAX)
    if math.isnan(used) or math.isnan(total):
        return used, total, used if math.isnan(used) else total
    return used, total, 100.0 * used / total


def _utilization(nvml: Nvml, handle: Handle) -> tuple[float, ...]:
    return (checked(nvml.call("nvmlDeviceGetUtilizationRates", handle).gpu, 0, 100),)


def _number(
    metric: Metric,
    *functions: str,
    arguments: tuple[int, ...] = (),
    low: float = 0.0,
    high: float = _EXACT_MAX,
    scale: float = 1.0,
) -> Call:
    """Return the call that answers one metric with one number; of *functions*, newest first, a driver has one."""

    def ask(nvml: Nvml, handle: Handle) -> tuple[float, ...]:
        return (checked(nvml.newest(functions, handle, *arguments), low, high, scale=scale),)

    return Call((metric._replace(group="gpu", source=functions[0]),), ask)


def _row(field: str, unit: str, help_: str, *, integer: bool = False, rolled: bool = False) -> Metric:
    return Metric("gpu", field, unit, help_, "", integer=integer, rolled=rolled)


_UTILIZATION = _row(
    "utilization_percent",
    "percent",
    "Share of the driver's last period (up to 1 s) with a kernel running.",
    rolled=True,
)
_USED = _row(
    "memory_used_bytes", "bytes", "Memory in use, without what the driver keeps for itself.", integer=True, rolled=True
)
_TOTAL = _row("memory_total_bytes", "bytes", "Memory of the device.", integer=True)
_PERCENT = _row("memory_percent", "percent", "Memory in use, of the memory of the device.", rolled=True)

UTILIZATION = Call((_UTILIZATION._replace(source="nvmlDeviceGetUtilizationRates"),), _utilization)
MEMORY = Call(tuple(row._replace(source="nvmlDeviceGetMemoryInfo_v2") for row in (_USED, _TOTAL, _PERCENT)), _memory)

# The order is that of measurements.md. NVML gives milliwatts, and kilobytes per second over a window of 20 ms.
CALLS: tuple[Call, ...] = (
    UTILIZATION,
    MEMORY,
    _number(
        _row("temperature_celsius", "celsius", "Temperature of the die."),
        "nvmlDeviceGetTemperatureV",
        "nvmlDeviceGetTemperature",
        arguments=(_TEMPERATURE_GPU,),
        low=-60,
        high=200,
    ),
    _number(
        _row("power_watts", "watts", "Power drawn by the board."), "nvmlDeviceGetPowerUsage", high=100e6, scale=1e-3
    ),
    _number(
        _row("power_limit_watts", "watts", "Power that the driver allows now."),
        "nvmlDeviceGetEnforcedPowerLimit",
        high=100e6,
        scale=1e-3,
    ),
    _number(
        _row("sm_clock_mhz", "mhz", "Clock of the multiprocessors."),
        "nvmlDeviceGetClockInfo",
        arguments=(_CLOCK_SM,),
        high=100e3,
    ),
    _number(
        _row("memory_clock_mhz", "mhz", "Clock of the memory."),
        "nvmlDeviceGetClockInfo",
        arguments=(_CLOCK_MEMORY,),
        high=100e3,
    ),
    _number(
        _row(
            "throttle_reasons",
            "bits",
            "Why the clocks are held down; shm_monitor.throttle names the bits.",
            integer=True,
        ),
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
    ),
    _number(
        _row("ecc_corrected_count", "count", "Memory errors corrected since the driver was loaded.", integer=True),
        "nvmlDeviceGetTotalEccErrors",
        arguments=(_CORRECTED, _VOLATILE),
    ),
    _number(
        _row(
            "ecc_uncorrected_count", "count", "Memory errors not corrected since the driver was loaded.", integer=True
        ),
        "nvmlDeviceGetTotalEccErrors",
        arguments=(_UNCORRECTED, _VOLATILE),
    ),
    _number(
        _row("pcie_receive_bytes_per_second", "bytes_per_second", "Received over PCIe by the GPU, over 20 ms."),
        "nvmlDeviceGetPcieThroughput",
        arguments=(_PCIE_RECEIVE,),
        high=1e9,
        scale=1e3,
    ),
    _number(
        _row("pcie_transmit_bytes_per_second", "bytes_per_second", "Sent over PCIe by the GPU, over 20 ms."),
        "nvmlDeviceGetPcieThroughput",
        arguments=(_PCIE_TRANSMIT,),
        high=1e9,
        scale=1e3,
    ),
)
