"""CPU, memory and network by psutil, for a host without /proc (macOS). No cgroups, no stall: there are none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psutil

from shm_monitor.collectors import cpu, memory, network
from shm_monitor.collectors.base import Array
from shm_monitor.collectors.files import ERROR, NOT_SUPPORTED, Rate, percent, sum_of_rates, total
from shm_monitor.schema import Metric


class PortableCpuCollector:
    """CPU of the host. Source: psutil.cpu_times, getloadavg. Cost: 40 us."""

    name = "cpu"
    threaded = False
    interval_seconds: float | None = None
    metrics: Sequence[Metric] = cpu.METRICS
    facts: Mapping[str, Any] = {"scopes": ["host"]}

    def __init__(self) -> None:
        """Start with no sample: the first shares are unknown."""
        self._busy, self._whole = Rate(), Rate()

    def collect(self, out: Array) -> None:
        """Write the readings into *out*, shape (10,); what psutil does not tell here is not_supported."""
        times = psutil.cpu_times()
        now_ns = time.monotonic_ns()
        whole = float(sum(times))
        share = percent(self._busy(whole - times.idle, now_ns), self._whole(whole, now_ns))
        count = float(psutil.cpu_count() or ERROR)
        out[:] = NOT_SUPPORTED
        out[:7] = (share, share, count, count, *psutil.getloadavg())

    def close(self) -> None:
        """Nothing is held open."""


class PortableMemoryCollector:
    """Memory and swap of the host. Source: psutil.virtual_memory, swap_memory. Cost: 150 us."""

    name = "memory"
    threaded = False
    interval_seconds: float | None = None
    metrics: Sequence[Metric] = (*memory.METRICS, *memory.level_metrics("host"))
    facts: Mapping[str, Any] = {"scopes": ["host"]}

    def collect(self, out: Array) -> None:
        """Write the readings into *out*, shape (22,); what psutil does not tell here is not_supported."""
        host, swap = psutil.virtual_memory(), psutil.swap_memory()
        usage = host.total - host.available
        cached = getattr(host, "cached", NOT_SUPPORTED)
        out[:] = NOT_SUPPORTED
        out[:5] = (usage, host.total, host.available, 100 * usage / host.total, 0)
        out[5:10] = (host.total, host.available, cached, swap.total, swap.used)
        out[len(memory.METRICS) :][:3] = (usage, host.total, 0)
        out[-1] = swap.free if swap.total else NOT_SUPPORTED

    def close(self) -> None:
        """Nothing is held open."""


class PortableNetworkCollector:
    """Bytes per second of the interfaces that count. Source: psutil.net_io_counters. Cost: 50 us."""

    name = "network"
    threaded = False
    interval_seconds: float | None = None

    def __init__(self, interfaces: Sequence[str] = (), *, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Find the interfaces; *interfaces* are those that count, none: all but loopback."""
        self._clock = clock
        found = psutil.net_io_counters(pernic=True)
        self._shown = tuple(dict.fromkeys([*interfaces, *found]))[: network.MAX_INTERFACES]
        self._counted = [name for name in self._shown if name in interfaces or (not interfaces and name[:2] != "lo")]
        self._rates = {name: (Rate(), Rate()) for name in self._shown}
        self.metrics: Sequence[Metric] = (
            *network.TOTALS,
            *(row for name in self._shown for row in network.interface_metrics(name)),
        )
        self.facts: Mapping[str, Any] = {"counted": self._counted}

    def collect(self, out: Array) -> None:
        """Write the readings into *out*, shape (3 + 6 x interfaces,), in the order of ``metrics``."""
        now_ns = self._clock()
        found = psutil.net_io_counters(pernic=True)
        rows = {name: self._row(name, found.get(name), now_ns) for name in self._shown}
        received = sum_of_rates(rows[name][0] for name in self._counted)
        sent = sum_of_rates(rows[name][1] for name in self._counted)
        out[:] = [total((received, sent)), received, sent, *(value for row in rows.values() for value in row)]

    def _row(self, name: str, reading: Any, now_ns: int) -> Sequence[float]:
        if reading is None:
            return (NOT_SUPPORTED,) * 6
        received, sent = self._rates[name]
        return (
            received(reading.bytes_recv, now_ns),
            sent(reading.bytes_sent, now_ns),
            *(reading.bytes_recv, reading.bytes_sent),
            *(reading.dropin + reading.dropout, reading.errin + reading.errout),
        )

    def close(self) -> None:
        """Nothing is held open."""
