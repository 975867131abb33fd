"""Disk: bytes per second and busy time of whole devices, and the space of chosen mounts."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from shm_monitor.collectors.base import Array
from shm_monitor.collectors.files import ERROR, NOT_SUPPORTED, ProcFile, Rate, Roots, is_known, sum_of_rates, why
from shm_monitor.schema import Metric

_STATS = "/proc/diskstats"
_SECTOR_BYTES = 512  # always, whatever the device's own: Documentation/admin-guide/iostats.rst
_LEFT_OUT = re.compile(rb"loop|ram|zram|fd|sr|nvme\d+c\d+n")  # the last are the paths of a multipath NVMe device
_ZVOL = b"zd"  # of a pool of ZFS, which does not list its disks as slaves
MAX_DEVICES = 32  # five columns each; all of them count in the totals
MOUNT_INTERVAL_SECONDS = 5.0

TOTALS = (
    Metric(
        "disk",
        "read_bytes_per_second",
        "bytes_per_second",
        "Read from all devices that stand on no other device.",
        f"{_STATS} sectors read",
    ),
    Metric(
        "disk",
        "write_bytes_per_second",
        "bytes_per_second",
        "Written to all devices that stand on no other device.",
        f"{_STATS} sectors written",
    ),
)


def device_metrics(name: str) -> tuple[Metric, ...]:
    """Return the rows of the device *name*."""

    def row(field: str, unit: str, text: str, column: str) -> Metric:
        return Metric("disk", field, unit, text, f"{_STATS} {column}", name, integer=unit == "bytes")

    return (
        row("read_bytes_per_second", "bytes_per_second", "Read from this device.", "sectors read"),
        row("write_bytes_per_second", "bytes_per_second", "Written to this device.", "sectors written"),
        row("read_bytes_count", "bytes", "Read from this device since it came.", "sectors read"),
        row("write_bytes_count", "bytes", "Written to this device since it came.", "sectors written"),
        row("busy_percent", "percent", "Share of time with a request in flight.", "time doing I/O"),
    )


class Counters(NamedTuple):
    """What one device counted since it came: bytes and milliseconds."""

    read: float
    written: float
    busy_ms: float


class Rates(NamedTuple):
    """The counters of one device at the sample before."""

    read: Rate
    written: Rate
    busy_ms: Rate


class DiskCollector:
    """Bytes per second over whole devices, and of each with its busy time.

    Source: /proc/diskstats. Cost: 15 us, with 10 devices.

    Partitions, loop, ram and removable drives and the paths of a multipath NVMe device are left out. Device mapper,
    RAID and zvols have columns of their own but count in no total, as the devices below them do. A device that comes
    later has no columns.
    """

    name = "disk"
    threaded = False
    interval_seconds: float | None = None

    def __init__(self, roots: Roots, *, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Find the devices."""
        self._clock = clock
        self._block = f"{roots.sys}/block"
        self._file = ProcFile(f"{roots.proc}/diskstats")
        self._kinds: dict[bytes, tuple[bool, bool]] = {}
        self._assembled: set[bytes] = set()  # not hardware: what they stand on can change
        self._rates: dict[bytes, Rates] = {}
        self._shown = self._choose_shown()
        names = [os.fsdecode(name) for name in self._shown]
        self.metrics: Sequence[Metric] = (*TOTALS, *(row for name in names for row in device_metrics(name)))
        self.facts: Mapping[str, list[str]] = {"devices": names}

    def _choose_shown(self) -> tuple[bytes, ...]:
        try:
            found = self._devices(self._file.read())
        except OSError:
            found = {}
        return tuple(found)[:MAX_DEVICES]

    def collect(self, out: Array) -> None:
        """Write the readings into *out*, shape (2 + 5 x devices,), in the order of ``metrics``."""
        now_ns = self._clock()
        try:
            now = self._devices(self._file.read())
        except OSError as error:
            out[:] = why(error)
            return
        self._rates = {name: self._rates.get(name) or Rates(Rate(), Rate(), Rate()) for name in now}
        rates = {name: self._rate(name, reading, now_ns) for name, reading in now.items()}
        lowest = [rate for name, rate in rates.items() if self._kinds[name][1]]
        values = [sum_of_rates(rate[0] for rate in lowest), sum_of_rates(rate[1] for rate in lowest)]
        for name in self._shown:
            reading = now.get(name)
            if reading is None:
                values += [NOT_SUPPORTED] * 5
            else:
                read, written, busy = rates[name]
                values += (read, written, reading.read, reading.written, busy)
        out[:] = values

    def _devices(self, data: bytes) -> dict[bytes, Counters]:
        """Return the counters of the whole devices in *data* (/proc/diskstats)."""
        found = {}
        for name in self._assembled:
            self._kinds.pop(name, None)
        self._assembled.clear()
        for line in data.split(b"\n"):
            words = line.split(None, 13)
            if len(words) > 2 and self._kind(words[2])[0]:
                found[words[2]] = _counters(words)
        return found

    def _kind(self, name: bytes) -> tuple[bool, bool]:
        """Return whether *name* is a whole device that we show, and whether it stands on no other one."""
        kind = self._kinds.get(name)
        if kind is None:
            path = f"{self._block}/{os.fsdecode(name).replace('/', '!')}"
            whole = not _LEFT_OUT.match(name) and os.access(path, os.F_OK)
            kind = self._kinds[name] = whole, whole and not name.startswith(_ZVOL) and not _entries(f"{path}/slaves")
            if whole and not os.access(f"{path}/device", os.F_OK):
                self._assembled.add(name)
        return kind

    def _rate(self, name: bytes, reading: Counters, now_ns: int) -> tuple[float, float, float]:
        """Return bytes read and written per second, and percent of the time busy."""
        rates = self._rates[name]
        busy = rates.busy_ms(reading.busy_ms, now_ns)
        return (
            rates.read(reading.read, now_ns),
            rates.written(reading.written, now_ns),
            min(100.0, busy / 10) if is_known(busy) else busy,  # ms per second -> percent
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _counters(words: Sequence[bytes]) -> Counters:
    """Return the counters of one line; source: Documentation/admin-guide/iostats.rst, fields 3, 7 and 10."""
    try:
        return Counters(float(words[5]) * _SECTOR_BYTES, float(words[9]) * _SECTOR_BYTES, float(words[12]))
    except (ValueError, IndexError):
        return Counters(ERROR, ERROR, ERROR)


def _entries(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


class MountCollector:
    """Space of one mount. Source: statvfs(3). Cost: 3 us; threaded, as a network file system can hang for ever."""

    threaded = True
    interval_seconds: float | None = MOUNT_INTERVAL_SECONDS

    def __init__(self, path: str) -> None:
        """Watch the file system at *path*; it need not be there yet."""
        self.name = f"mount:{path}"
        self._path = path
        self.metrics: Sequence[Metric] = tuple(
            Metric("mount", field, "bytes", text, f"statvfs(3) {source}", path, integer=True)
            for field, text, source in (
                ("total_bytes", "Size of the file system.", "f_blocks"),
                ("used_bytes", "Used of the file system.", "f_blocks - f_bfree"),
                ("available_bytes", "What a process without privileges can still write.", "f_bavail"),
            )
        )
        self.facts: Mapping[str, Any] = {}

    def collect(self, out: Array) -> None:
        """Write total, used and available bytes into *out*, shape (3,)."""
        try:
            status = os.statvfs(self._path)
        except OSError as error:
            out[:] = why(error)
            return
        unit = status.f_frsize
        out[:] = (status.f_blocks * unit, (status.f_blocks - status.f_bfree) * unit, status.f_bavail * unit)

    def close(self) -> None:
        """Nothing is held open."""
