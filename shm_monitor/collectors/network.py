"""Network: bytes per second over the interfaces that count, and of each interface."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from shm_monitor.collectors.base import Array
from shm_monitor.collectors.files import ERROR, NOT_SUPPORTED, ProcFile, Rate, Roots, sum_of_rates, total, why
from shm_monitor.schema import Metric

_DEV = "/proc/net/dev"
_COUNTED = "sum over the interfaces that count: the configured ones, else those with hardware, else all but lo"
MAX_INTERFACES = (
    32  # six columns each; a container host has hundreds of veth, and the kernel's list is still summed whole
)

TOTALS = (
    Metric(
        "network",
        "usage_bytes_per_second",
        "bytes_per_second",
        f"Received and sent, {_COUNTED}.",
        f"{_DEV} bytes",
        rolled=True,
    ),
    Metric(
        "network", "receive_bytes_per_second", "bytes_per_second", f"Received, {_COUNTED}.", f"{_DEV} receive bytes"
    ),
    Metric("network", "transmit_bytes_per_second", "bytes_per_second", f"Sent, {_COUNTED}.", f"{_DEV} transmit bytes"),
)


def interface_metrics(name: str) -> tuple[Metric, ...]:
    """Return the rows of the interface *name*."""

    def row(field: str, unit: str, text: str, column: str) -> Metric:
        return Metric("network", field, unit, text, f"{_DEV} {column}", name, integer=unit != "bytes_per_second")

    return (
        row("receive_bytes_per_second", "bytes_per_second", "Received by this interface.", "receive bytes"),
        row("transmit_bytes_per_second", "bytes_per_second", "Sent by this interface.", "transmit bytes"),
        row("receive_bytes_count", "bytes", "Received by this interface since it was made.", "receive bytes"),
        row("transmit_bytes_count", "bytes", "Sent by this interface since it was made.", "transmit bytes"),
        row("drops_count", "packets", "Packets dropped, both ways.", "drop"),
        row("errors_count", "packets", "Packets with errors, both ways.", "errs"),
    )


class Counters(NamedTuple):
    """What one interface counted since it was made; an unreadable one is unknown."""

    received: float
    sent: float
    drops: float
    errors: float


class NetworkCollector:
    """Bytes per second over the interfaces that count, and of each.

    Source: /proc/net/dev. Cost: 18 us, with 4 interfaces.

    An interface that comes later counts in the totals from its second sample on and has no columns of its own.
    """

    name = "network"
    threaded = False
    interval_seconds: float | None = None

    def __init__(
        self, interfaces: Sequence[str], roots: Roots, *, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """Find the interfaces; *interfaces* are names or shell patterns of those that count in the totals."""
        self._clock = clock
        self._roots = roots
        self._file = ProcFile(f"{roots.proc}/net/dev")
        self._wanted = tuple(interfaces)
        self._seen: frozenset[bytes] = frozenset()
        self._counted: frozenset[bytes] = frozenset()
        self._rates: dict[bytes, tuple[Rate, Rate]] = {}
        self._shown = self._choose_shown()
        names = [os.fsdecode(name) for name in self._shown]
        self.metrics: Sequence[Metric] = (*TOTALS, *(row for name in names for row in interface_metrics(name)))
        self.facts: Mapping[str, list[str]] = {"counted": sorted(os.fsdecode(name) for name in self._counted)}

    def _choose_shown(self) -> tuple[bytes, ...]:
        """Return the interfaces with columns of their own: those that count first, and those asked for by name."""
        asked = [os.fsencode(name) for name in self._wanted if not any(mark in name for mark in "*?[")]
        try:
            found = list(counters(self._file.read()))
        except (OSError, ValueError):
            found = []
        self._recount(found)
        counted = [name for name in found if name in self._counted]
        return tuple(dict.fromkeys([*asked, *counted, *found]))[:MAX_INTERFACES]

    def _recount(self, names: Iterable[bytes]) -> None:
        """Choose the interfaces that count, and forget those that are gone."""
        self._seen = frozenset(names)
        self._rates = {name: self._rates.get(name) or (Rate(), Rate()) for name in self._seen}
        others = self._seen - {b"lo"}
        if self._wanted:
            self._counted = frozenset(name for name in self._seen if self._is_wanted(os.fsdecode(name)))
            return
        # Bridges, bonds, veth, tunnels and VLANs show the bytes of the hardware below a second time; so does Azure's
        # netvsc, which is hardware itself and the master of a faster one (Documentation/networking/netvsc, SR-IOV).
        net = f"{self._roots.sys}/class/net"
        hardware = {name for name in others if os.access(f"{net}/{os.fsdecode(name)}/device", os.F_OK)}
        below = {name for name in hardware if _master(f"{net}/{os.fsdecode(name)}") in hardware}
        self._counted = frozenset(hardware - below) or others

    def _is_wanted(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._wanted)

    def collect(self, out: Array) -> None:
        """Write the readings into *out*, shape (3 + 6 x interfaces,), in the order of ``metrics``."""
        now_ns = self._clock()
        try:
            now = counters(self._file.read())
        except OSError as error:
            out[:] = why(error)
            return
        except ValueError:
            out[:] = ERROR
            return
        if now.keys() != self._seen:
            self._recount(now)
        rates = {name: self._rate(name, reading, now_ns) for name, reading in now.items()}
        received = sum_of_rates(rates[name][0] for name in self._counted)
        sent = sum_of_rates(rates[name][1] for name in self._counted)
        values = [total((received, sent)), received, sent]
        for name in self._shown:
            reading = now.get(name)
            values += (*rates[name], *reading) if reading is not None else [NOT_SUPPORTED] * 6
        out[:] = values

    def _rate(self, name: bytes, reading: Counters, now_ns: int) -> tuple[float, float]:
        received, sent = self._rates[name]
        return received(reading.received, now_ns), sent(reading.sent, now_ns)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


_UNREADABLE = Counters(ERROR, ERROR, ERROR, ERROR)


def _master(path: str) -> bytes:
    """Return the interface that the one at *path* is a part of, or nothing."""
    try:
        return os.path.basename(os.fsencode(os.readlink(f"{path}/master")))
    except OSError:
        return b""


def counters(data: bytes) -> dict[bytes, Counters]:
    """Return the counters of each interface that *data* (/proc/net/dev) lists; a line that is no line is unknown.

    Raises:
        ValueError: *data* is no such list at all. Source: proc_pid_net(5).
    """
    lines = data.removesuffix(b"\n").split(b"\n")
    if len(lines) < 2 or b"|" not in lines[1]:
        raise ValueError("not /proc/net/dev")
    found = {}
    for line in lines[2:]:
        name, _, rest = line.rpartition(b":")
        words = rest.split()
        try:
            found[name.strip()] = Counters(
                float(words[0]),
                float(words[8]),
                float(words[3]) + float(words[11]),
                float(words[2]) + float(words[10]),
            )
        except (ValueError, IndexError):
            found[name.strip()] = _UNREADABLE
    return found
