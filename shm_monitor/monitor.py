"""ResourceMonitor: direct readings in this process; no sampler, no shared memory, no decision."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np

from shm_monitor import collectors
from shm_monitor.collectors.sources import Source, source_for
from shm_monitor.schema import Unknown, unknown

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

RATE_SECONDS = 0.1  # a rate over less is noise: the kernel counts CPU in ticks of 10 ms
GPU_SECONDS = 5.0  # NVML's first answer may take seconds without persistence mode
MEBIBYTE = 1 << 20


class ResourceMonitor:
    """Readings on demand, in the scope that this process really has (cgroup limits and all).

    Rates (CPU, network) are over the time since the call before, at least 0.1 s: a call that comes sooner waits.
    For anything that is asked often, or by many processes, a sampler is cheaper: see ``ResourceManager``.
    """

    def __init__(self) -> None:
        """Open the sources and take the readings that the first rates start from."""
        self._sources: list[Source] = [source_for(one, 1.0) for one in collectors.discover()]
        self._newest: dict[str, float] = {}
        self._read_at = 0.0
        self._read()

    def get_cpu_percent(self) -> float | None:
        """Return CPU use over what this process may use, 0 to 100; None where unknown."""
        return self._known("cpu.cpu_percent")

    def get_memory_usage_mb(self) -> float | None:
        """Return memory use in MB of 2^20 bytes, of the level that runs out first (host or a cgroup)."""
        usage = self._known("memory.usage_bytes")
        return None if usage is None else usage / MEBIBYTE

    def get_gpu_percent(self) -> tuple[float, float]:
        """Return (utilization, memory) in percent, each the mean over the GPUs; NaN where unknown, as without a GPU."""
        self._wait_for_gpu()
        utilization, memory = self._gpu_mean("utilization_percent"), self._gpu_mean("memory_percent")
        return math.nan if utilization is None else utilization, math.nan if memory is None else memory

    def get_network_usage_bytes_per_second(self) -> float | None:
        """Return received + sent bytes per second over all interfaces but loopback."""
        return self._known("network.usage_bytes_per_second")

    def get_all_metrics(self) -> dict[str, float | None]:
        """Return the readings above by their names in ``/resources/all``, with ``timestamp`` in unix seconds."""
        self._wait_for_gpu()
        return {
            "cpu_percent": self.get_cpu_percent(),
            "memory_usage_mb": self.get_memory_usage_mb(),
            "gpu_percent": self._gpu_mean("utilization_percent"),
            "gpu_memory_percent": self._gpu_mean("memory_percent"),
            "network_usage_bytes_per_second": self.get_network_usage_bytes_per_second(),
            "timestamp": time.time(),
        }

    def close(self) -> None:
        """Close the sources."""
        for source in self._sources:
            source.close()

    def __enter__(self) -> Self:
        """Return the monitor itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the monitor."""
        self.close()

    def _known(self, name: str) -> float | None:
        """Return the reading *name* of now; readings of the last tenth of a second are still now."""
        if time.monotonic() - self._read_at >= RATE_SECONDS or np.isnan(self._newest.get(name, np.nan)):
            time.sleep(max(0.0, self._read_at + RATE_SECONDS - time.monotonic()))
            self._read()
        value = self._newest.get(name, np.nan)
        return None if np.isnan(value) else value

    def _gpu_mean(self, field: str) -> float | None:
        known = [
            value
            for name, value in self._newest.items()
            if name.startswith("gpu:") and name.endswith(f".{field}") and not np.isnan(value)
        ]
        return sum(known) / len(known) if known else None

    def _wait_for_gpu(self) -> None:
        """Read anew; NVML is asked in a thread of its own, so wait for its first answer."""
        deadline = time.monotonic() + GPU_SECONDS
        self._read()
        gpu = next((source for source in self._sources if source.collector.name == "gpu"), None)
        while gpu is not None and gpu.collector.metrics and not gpu.last_ok_mono_ns and time.monotonic() < deadline:
            time.sleep(0.01)
            self._read()

    def _read(self) -> None:
        for source in self._sources:
            readings = np.full(len(source.collector.metrics), unknown(Unknown.NOT_YET_SAMPLED))
            source.read(readings)
            names = (metric.name for metric in source.collector.metrics)
            self._newest.update(zip(names, readings.tolist(), strict=True))
        self._read_at = time.monotonic()
