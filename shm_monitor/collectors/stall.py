"""Pressure stall information: the share of our own window in which tasks waited for CPU, memory or IO."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from shm_monitor.collectors.base import Array
from shm_monitor.collectors.cgroup.scope import Cgroups, Scope
from shm_monitor.collectors.files import NOT_SUPPORTED, ProcFile, Rate, Roots, is_known, number, why
from shm_monitor.schema import Metric

RESOURCES = ("cpu", "memory", "io")
_KINDS = {"some": "at least one task waited", "full": "no task that was not waiting ran"}


def _metrics() -> Iterator[Metric]:
    for resource in RESOURCES:
        for kind, meaning in _KINDS.items():
            source = f"total of {kind}: {resource}.pressure of our cgroup (v2), else /proc/pressure/{resource}"
            field = f"{resource}_{kind}"
            yield Metric("stall", f"{field}_percent", "percent", f"Share of time: {meaning} for {resource}.", source)
            yield Metric("stall", f"{field}_seconds", "seconds", f"Time so far: {meaning} for {resource}.", source)


class StallCollector:
    """Stall of our cgroup (v2), else of the host, from the ``total`` counters: avg10 lags by seconds.

    Source: Documentation/accounting/psi.rst. Cost: 17 us.
    """

    name = "stall"
    threaded = False
    interval_seconds: float | None = None
    metrics: Sequence[Metric] = tuple(_metrics())

    def __init__(self, scope: Scope, roots: Roots, *, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Choose the files: those of the scope's own v2 cgroup where it has any, else those of the host."""
        self._clock = clock
        self._roots = roots
        self._cgroups = Cgroups(scope, roots)
        self._choose()

    def _choose(self) -> None:
        """Choose the files, whose counters begin anew."""
        self._files, source = _files(self._cgroups, self._roots)
        self._rates = [(Rate(), Rate()) for _ in RESOURCES]
        self.facts: Mapping[str, str] = {"source": source}

    def collect(self, out: Array) -> None:
        """Write the readings into *out*, shape (12,): for each resource and kind, percent and seconds."""
        if self._cgroups.changed():
            self._close_files()
            self._choose()
        values: list[float] = []
        for file, rates in zip(self._files, self._rates, strict=True):
            now = self._clock()
            for total_us, rate in zip(_totals(file), rates, strict=True):
                grown = rate(total_us, now)
                values.append(min(100.0, grown / 1e4) if is_known(grown) else grown)  # us per second -> percent
                values.append(total_us / 1e6 if is_known(total_us) else total_us)
        out[:] = values

    def _close_files(self) -> None:
        for file in self._files:
            file.close()

    def close(self) -> None:
        """Close the files."""
        self._close_files()
        self._cgroups.close()


def _totals(file: ProcFile) -> tuple[float, float]:
    """Return the microseconds of some and full; the cpu has no full before Linux 5.13."""
    try:
        data = b"\n" + file.read()
    except OSError as error:
        return why(error), why(error)
    full = data.find(b"\nfull ")
    some = data[:full] if full >= 0 else data
    return number(some, b" total="), number(data[full:], b" total=") if full >= 0 else NOT_SUPPORTED


def _files(cgroups: Cgroups, roots: Roots) -> tuple[list[ProcFile], str]:
    for directory in cgroups.of("")[-1:]:
        files = [ProcFile(directory.path / f"{resource}.pressure") for resource in RESOURCES]
        if any(is_known(some) for some, _ in map(_totals, files)):
            return files, directory.name
        for file in files:
            file.close()
    return [ProcFile(Path(roots.proc, "pressure", resource)) for resource in RESOURCES], "host"
