"""Workers that can be seen: each holds one byte of the side file ``NAME~workers`` under a record lock.

::

    bytes 0-1023           byte k is the lock of slot k
    1024 + 64 * k          the record of slot k, 8 bytes each
       worker's:  base_bytes, weight (f64), sheddable_bytes (all ones: unknown), u32 answered round and u32 wants,
                  shed_bytes
       sampler's: held_bytes, share (f64: of what a fair share would be), u32 asked in vain, u16 limit, u16 round

``wants`` has a bit for each thing that the worker wants to be asked for: bit 0 for memory, 1 + n for the n-th GPU that
has a limit of its memory (bit 30 for all from the 29th on); bit 31 once it has said any. ``limit`` says what the
request of that round is about: 0 for memory, else 1 + the place of the limit.

The kernel drops a lock with its process, a forked child inherits none, and the sampler finds the holders with their
pids by ``F_GETLK``: 1.8 us a worker. The segment itself stays read-only for workers.

Source: fcntl(2), "Advisory record locking".
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import threading

from shm_monitor.errors import MonitorError
from shm_monitor.forks import importing, renew_in_child
from shm_monitor.light import TYPE_CHECKING, NamedTuple
from shm_monitor.segment import record_locks
from shm_monitor.segment.layout import WORKER_COUNT

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIX = "~workers"
HAS_PRESENCE = sys.platform == "linux"  # elsewhere struct flock is another, and there is no /proc to look at
UNKNOWN_BYTES = 2**64 - 1
WANTS_ALL = 2**32 - 1
_HAS_SAID = 1 << 31

_RECORDS_OFFSET = WORKER_COUNT
_RECORD = struct.Struct("<QdQIIQQdIHH")
_WANTS_OFFSET = 3 * 8 + 4
_SHED_OFFSET = 4 * 8
_SAMPLERS_OFFSET = 5 * 8
_SAMPLERS = struct.Struct("<QdIHH")
_ROUND_MASK = 0xFFFF
_FLOCK = struct.Struct("hhqqi4x")  # type, whence, start, length, pid

_lock = threading.Lock()
_mine: dict[tuple[int, str], list[int]] = {}  # slot and users, by process and name: one slot a process


def _unlocked_in_child(_: object) -> None:
    """Take a lock of one's own: another thread of the parent may have held its."""
    global _lock  # noqa: PLW0603 - as threading itself does
    _lock = threading.Lock()


renew_in_child(sys.modules[__name__], _unlocked_in_child)


class Record(NamedTuple):
    """What the file says of one worker.

    Args:
        base_bytes: what it held when it presented itself.
        weight: its fair share is in proportion to it.
        sheddable_bytes: what it said that it can give back; ``UNKNOWN_BYTES`` where it said nothing.
        answered_round: the newest round that it has answered; shed_bytes is what it gave back then.
        wants: a bit for each thing that it wants to be asked for; 0 before it said any.
        held_bytes: what it holds above the base, as the sampler sees it; of a GPU's memory all that it holds.
        share: held_bytes over a fair share.
        in_vain_count: how often it was asked without effect.
        limit: what it is asked for in that round_number (modulo 2**16): 0 for memory, else 1 + the place of a limit.
    """

    base_bytes: int
    weight: float
    sheddable_bytes: int
    answered_round: int
    wants: int
    shed_bytes: int
    held_bytes: int
    share: float
    in_vain_count: int
    limit: int
    round_number: int


class SamplersPart(NamedTuple):
    """What the sampler writes into a record."""

    held_bytes: int
    share: float
    in_vain_count: int
    limit: int
    round_number: int


def take_slot(name: str, weight: float) -> int | None:
    """Return the slot that this process holds under *name*, taking a free one; None where none is to be had.

    Call ``give_back`` as often as this.

    Raises:
        MonitorError: the file cannot be made or trusted.
        OSError: the record cannot be written, such as for a full /dev/shm; no slot is taken.
    """
    with _lock:
        known = _mine.get((os.getpid(), name))
        if known is not None:
            known[1] += 1
            return known[0]
        for slot in range(WORKER_COUNT):
            if not record_locks.lock(name, SUFFIX, slot):
                continue
            record = Record(held_bytes_of("self"), weight, UNKNOWN_BYTES, 0, 0, 0, 0, 0.0, 0, 0, 0)
            try:
                os.pwrite(_file(name), _RECORD.pack(*record), _RECORDS_OFFSET + slot * _RECORD.size)
            except OSError:  # shared memory is full
                record_locks.unlock(name, SUFFIX, slot)
                raise
            _mine[os.getpid(), name] = [slot, 1]
            return slot
    return None


def give_back(name: str) -> None:
    """Let go of the slot of this process under *name* when nobody in it uses it any more."""
    with _lock:
        known = _mine.get((os.getpid(), name))
        if known is None:
            return
        known[1] -= 1
        if not known[1]:
            del _mine[os.getpid(), name]
            record_locks.unlock(name, SUFFIX, known[0])


def say(name: str, slot: int, *, sheddable_bytes: int | None = None, answer: tuple[int, int] | None = None) -> None:
    """Write into the own record what this worker can give back, or what it gave back in a round (round, bytes)."""
    place = _RECORDS_OFFSET + slot * _RECORD.size
    if sheddable_bytes is not None:
        os.pwrite(_file(name), struct.pack("<Q", sheddable_bytes), place + 16)
    if answer is not None:
        round_number, shed_bytes = answer
        os.pwrite(_file(name), struct.pack("<Q", shed_bytes), place + _SHED_OFFSET)  # first: it is that of the round
        os.pwrite(_file(name), struct.pack("<I", round_number), place + 24)


def want(name: str, slot: int, bits: int) -> None:
    """Write into the own record that this worker wants to be asked for *bits*, too, while anybody uses the slot."""
    place = _RECORDS_OFFSET + slot * _RECORD.size + _WANTS_OFFSET
    with _lock:
        (wanted,) = struct.unpack("<I", os.pread(_file(name), 4, place).ljust(4, b"\0"))
        os.pwrite(_file(name), struct.pack("<I", wanted | bits | _HAS_SAID), place)


def want_of(gpu_number: int | None = None) -> int:
    """Return the bit of memory, or that of the n-th GPU that has a limit of its memory."""
    return 1 if gpu_number is None else 1 << min(gpu_number + 1, 30)


class Register:
    """The file as the sampler and other lookers have it: who is present, and their records."""

    def __init__(self, name: str) -> None:
        """Look at the file of *name*, which may not be there yet."""
        self._name = name

    def holders(self) -> Iterator[tuple[int, int]]:
        """Yield (slot, pid) of every present worker but this process; the pid is 0 in another pid namespace."""
        with importing:
            import fcntl

        fd = self._open()
        start = 0
        while fd is not None and start < WORKER_COUNT:
            asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, WORKER_COUNT - start, 0)
            kind, _, first, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
            if kind == fcntl.F_UNLCK:
                return
            if start <= first < WORKER_COUNT:
                yield first, max(pid, 0)
            start = max(first, start) + 1

    def record(self, slot: int) -> Record:
        """Return the record of *slot*."""
        fd = self._open()
        data = b""
        if fd is not None:
            with contextlib.suppress(OSError):  # not to be had is nothing known
                data = os.pread(fd, _RECORD.size, _RECORDS_OFFSET + slot * _RECORD.size)
        return Record(*_RECORD.unpack(data.ljust(_RECORD.size, b"\0")))

    def tell(self, slot: int, told: SamplersPart) -> None:
        """Write the sampler's part of the record of *slot*."""
        fd = self._open()
        if fd is not None:
            place = _RECORDS_OFFSET + slot * _RECORD.size + _SAMPLERS_OFFSET
            told = told._replace(round_number=told.round_number & _ROUND_MASK)
            os.pwrite(fd, _SAMPLERS.pack(*told), place)

    @property
    def exists(self) -> bool:
        """True once any worker has presented itself."""
        return self._open() is not None

    def _open(self) -> int | None:
        with _lock:
            try:
                return record_locks.file_of(self._name, SUFFIX, make=False)
            except (FileNotFoundError, MonitorError):
                return None


def held_bytes_of(pid: int | str) -> int:
    """Return the anonymous and shared memory of *pid* that is resident; 0 where it cannot be seen. 15 us.

    File pages are the kernel's to take back. Source: proc_pid_status(5), RssAnon and RssShmem.
    """
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            text = file.read()
    except OSError:
        return 0
    found = 0
    for key in (b"\nRssAnon:", b"\nRssShmem:"):
        at = text.find(key)
        if at >= 0:
            found += int(text[at + len(key) :].split(None, 1)[0]) * 1024
    return found


def _file(name: str) -> int:
    return record_locks.file_of(name, SUFFIX)
