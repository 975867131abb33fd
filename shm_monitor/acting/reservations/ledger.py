"""Who waits and who runs under one memory limit, in a file that all processes of a user share.

Every slot has a byte of a second file under a record lock of its owner: the kernel drops it when the owner dies. The
locks have a file of their own, because ``mmap`` duplicates its descriptor, and closing any descriptor of a file drops
all record locks of the process on it.

Source: fcntl(2), mmap(2).
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
import time
from struct import Struct

from shm_monitor.acting.peak import reset_peak
from shm_monitor.acting.reservations.measure import Limit, anonymous_bytes, peak_bytes
from shm_monitor.acting.reservations.rule import (
    FREE,
    MB,
    RUNS,
    SETTLE_SECONDS,
    WAITS,
    Holders,
    Kind,
    Slot,
    fits,
    forecast,
    grows,
    learned,
    will_take,
)
from shm_monitor.segment import record_locks, side_files
from shm_monitor.segment.names import RESERVATIONS_SUFFIX

SLOTS, KINDS = 512, 128
ASKS_SECONDS = 0.25  # an older ticket that has not asked for so long does not hold others back
_FILE, _LOCKS = RESERVATIONS_SUFFIX, f"{RESERVATIONS_SUFFIX}.locks"
_HEAD, _KIND, _SLOT = Struct("QQ"), Struct("QQQdQ"), Struct("IIQQQQQIddd")
_FLOCK = Struct("hhqqi")
_KINDS_AT = 64
_SLOTS_AT = _KINDS_AT + KINDS * _KIND.size
_SIZE = _SLOTS_AT + SLOTS * _SLOT.size


class Ledger:
    """The file. As a context manager it is the admission lock: one process of all decides at a time."""

    def __init__(self) -> None:
        """Map the file of this process's innermost limit; make it where there is none."""
        self.limit = Limit()
        self._name = f"memory-{self.limit.name}"
        self._mutex = threading.RLock()
        self._pid, self._parent = os.getpid(), os.getppid()
        self._locks = record_locks.file_of(self._name, _LOCKS)
        fd = side_files.open_file(self._name, _FILE, os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, _SIZE)
        self._map = mmap.mmap(fd, _SIZE)
        os.close(fd)
        self._base = anonymous_bytes()
        self._running = self._most = 0

    def __enter__(self) -> None:
        self._mutex.acquire()
        fcntl.lockf(self._locks, fcntl.LOCK_EX, 1, 0)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, 0)
        self._mutex.release()

    def slots(self) -> dict[int, Slot]:
        """Return the slots in use; free those of dead owners and learn from them what they had."""
        found = {}
        for index in range(_HEAD.unpack_from(self._map)[1]):
            slot = Slot._make(_SLOT.unpack_from(self._map, _SLOTS_AT + index * _SLOT.size))
            if slot.state == FREE:
                continue
            if slot.pid != self._pid and self._is_dead(index):
                if slot.state == RUNS and slot.seen_bytes:
                    self._learn(slot, slot.seen_bytes * 5 // 4)
                self._put(index, Slot())
            else:
                found[index] = slot
        return found

    def take(self, kind: int) -> int | None:
        """Return a new waiting slot with the next ticket; None when all are in use."""
        used = self.slots()
        ticket, top = _HEAD.unpack_from(self._map)
        index = next((one for one in range(SLOTS) if one not in used), None)
        if index is not None:
            record_locks.lock(self._name, _LOCKS, 1 + index)
            _HEAD.pack_into(self._map, 0, ticket + 1, max(top, index + 1))
            self._put(index, Slot(WAITS, self._pid, kind, ticket, asked_at=time.monotonic()))
        return index

    def ask(self, index: int, told_bytes: int) -> bool:
        """Admit the task of slot *index*, or return False: not yet."""
        now, mine = time.monotonic(), anonymous_bytes()
        if not self._running:
            self._base = min(self._base, mine)
        slots = self.slots()
        slot = slots[index]._replace(asked_at=now)
        self._put(index, slot)
        running = {number: one for number, one in slots.items() if one.state == RUNS}
        pids = {one.pid for one in running.values()}
        if pids <= {self._parent}:  # nobody, or a parent that waits for this process
            self._admit(index, slot, told_bytes)
            return True
        kind = self._kind(slot.kind)
        ahead = [forecast(self._kind(one.kind)) for one in slots.values() if _is_ahead(one, slot, now)]
        if ahead and not (all(ahead) and (forecast(kind) or told_bytes)):
            return False
        kept = 0 if self._pid in pids else max(mine - self._base, 0)
        holders = self._holders(running, slot.kind, now)
        needed = fits(kind, told_bytes, holders, kept_bytes=kept, ahead_bytes=sum(ahead))
        if needed is None or needed > self.limit.free_bytes(needed):
            return False
        self._admit(index, slot, told_bytes)
        return True

    def leave(self, index: int) -> bool:
        """End the task of slot *index* and learn what it took; return whether memory is short."""
        slot = Slot._make(_SLOT.unpack_from(self._map, _SLOTS_AT + index * _SLOT.size))
        grew = max(peak_bytes() - self._base, 0) // max(self._most, 1)
        self._learn(slot, max(grew, slot.seen_bytes))
        self._running -= 1
        self.drop(index)
        share = 2 if any(one.state == WAITS for one in self.slots().values()) else 3
        return self.limit.free_bytes() < self.limit.limit_bytes // share

    def drop(self, index: int) -> None:
        """Free the slot."""
        self._put(index, Slot())
        record_locks.unlock(self._name, _LOCKS, 1 + index)

    def _holders(self, running: dict[int, Slot], kind: int, now: float) -> Holders:
        """Look at what each process with running tasks has, and write into its slots what is new."""
        found = Holders()
        for pid in {slot.pid for slot in running.values()}:
            held = {index: slot for index, slot in running.items() if slot.pid == pid}
            grown = max(anonymous_bytes(pid) - min(slot.base_bytes for slot in held.values()), 0)
            each = grown // max(len(held), *(slot.most for slot in held.values()))
            wanted = 0
            for index, old in held.items():
                slot = old._replace(seen_bytes=each, grew_at=now) if each > old.seen_bytes + MB else old
                self._put(index, slot)
                expected = max(forecast(self._kind(slot.kind)), slot.expected_bytes)
                wanted += will_take(each, expected, is_growing=grows(slot, now))
                if slot.kind == kind:
                    found = _with(found, slot, each, expected, now)
            found = found._replace(owed_bytes=found.owed_bytes + max(wanted - grown, 0))
        return found

    def _admit(self, index: int, slot: Slot, told_bytes: int) -> None:
        if not self._running:  # while other tasks run, a reset would take their peak from them
            reset_peak()
            self._most = 0
        self._running += 1
        self._most = max(self._most, self._running)
        kind, now = self._kind(slot.kind), time.monotonic()
        expected = max(kind.before_bytes, kind.now_bytes, told_bytes)
        admitted = slot._replace(state=RUNS, base_bytes=self._base, expected_bytes=expected, seen_bytes=0)
        self._put(index, admitted._replace(most=self._most, grew_at=now, began_at=now))

    def _is_dead(self, index: int) -> bool:
        request = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 1 + index, 1, 0)
        kind: int = _FLOCK.unpack(fcntl.fcntl(self._locks, fcntl.F_GETLK, request))[0]
        return kind == fcntl.F_UNLCK

    def _put(self, index: int, slot: Slot) -> None:
        _SLOT.pack_into(self._map, _SLOTS_AT + index * _SLOT.size, *slot)

    def _kind(self, number: int) -> Kind:
        kind = Kind._make(_KIND.unpack_from(self._map, _KINDS_AT + number % KINDS * _KIND.size))
        return kind if kind.number == number else Kind(number)

    def _learn(self, slot: Slot, grew_bytes: int) -> None:
        kind = learned(self._kind(slot.kind), slot.expected_bytes, grew_bytes)
        _KIND.pack_into(self._map, _KINDS_AT + slot.kind % KINDS * _KIND.size, *kind)


def _is_ahead(other: Slot, mine: Slot, now: float) -> bool:
    return other.state == WAITS and other.ticket < mine.ticket and now - other.asked_at < ASKS_SECONDS


def _with(found: Holders, slot: Slot, each_bytes: int, expected_bytes: int, now: float) -> Holders:
    """Return *found* with one more running task of the asker's kind."""
    is_growing = grows(slot, now)
    return found._replace(
        live_bytes=max(found.live_bytes, each_bytes),
        same=(*found.same, each_bytes),
        fresh=found.fresh + (now - slot.began_at < SETTLE_SECONDS),
        growing=found.growing or is_growing,
        surprised=found.surprised or (is_growing and each_bytes > expected_bytes),
    )
