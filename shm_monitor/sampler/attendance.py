"""The sampler's view of its present workers: who is there, what each holds, and what each is told."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

from shm_monitor.sampler.rise import Rise
from shm_monitor.sampler.rounds import Candidate, Need, Rounds, shares
from shm_monitor.schema import Level
from shm_monitor.segment.flags import level_of, reasons_of, request_word, verdict_word
from shm_monitor.segment.presence import HAS_PRESENCE, UNKNOWN_BYTES, Register, held_bytes_of

if TYPE_CHECKING:
    from collections.abc import Callable

SHOWN_SECONDS = 10.0  # calm, what workers hold is looked up so often, for people
ROUND_LOOK_SECONDS = 0.1  # while somebody is asked, memory is looked at so often: what is given back is seen soon


class Over(NamedTuple):
    """The level of memory that is furthest over its target.

    Args:
        size_bytes: usage less target; negative below it, NaN where nothing is known.
        room_bytes: between target and limit.
        place: which one it is, among those of memory.
    """

    size_bytes: float = math.nan
    room_bytes: float = 0.0
    place: int = 0


class Told(NamedTuple):
    """What the workers are told in one turn.

    Args:
        others: the verdict of all limits but those of memory.
        everybody: the verdict of who is not (yet) known: that of memory.
        verdicts: by slot, of the others; requests likewise.
    """

    others: int
    everybody: int
    verdicts: dict[int, int]
    requests: dict[int, int]


class Attendance:
    """Looks once per sample; costs one failed open(2) while nobody has ever presented itself."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Look at the workers of the sampler *name*."""
        self._register = Register(name)
        self._clock = clock
        self._workers: dict[int, Candidate] = {}
        self._rounds, self._rise = Rounds(), Rise()
        self._looked_at = float("-inf")

    @property
    def wait_seconds(self) -> float:
        """In how many seconds memory should be looked at again; infinite while nobody is asked."""
        is_asked = any(worker.request_bytes for worker in self._workers.values())
        return ROUND_LOOK_SECONDS if is_asked else math.inf

    def turn(self, memory: int, others: int, over: Over) -> Told | None:
        """Return what each worker is told; None while nobody has presented itself.

        Args:
            memory: the worst verdict of a limit of memory; others: of any other limit.
            over: how much the level of memory that is furthest over its target is over it.
        """
        if not HAS_PRESENCE or not self._register.exists:
            return None
        now, level = self._clock(), level_of(memory)
        present = self._present()
        if level >= Level.WARN or now - self._looked_at >= SHOWN_SECONDS:
            self._looked_at = now
            self._look(present)
        self._rise.turn(over.size_bytes, over.place, now)
        seen = [worker for worker in present if worker.pid and worker.held_bytes]
        deficit = over.size_bytes if level >= Level.PRUNE and over.size_bytes > 0 else 0.0
        need = Need(deficit, over.room_bytes, self._rise.rate)
        self._rounds.turn(seen, need, now, is_critical=level is Level.CRITICAL)
        verdicts, requests = {}, {}
        for worker in present:
            if worker.pid:  # one that cannot be seen is told what everybody is
                verdicts[worker.slot] = _verdict(worker, memory, is_critical=level is Level.CRITICAL)
            requests[worker.slot] = request_word(worker.round_number, worker.request_bytes)
        return Told(others, memory, verdicts, requests)

    def _present(self) -> list[Candidate]:
        found = dict(self._register.holders())
        for slot, pid in found.items():
            known = self._workers.get(slot)
            if known is None or known.pid != pid:
                self._workers[slot] = Candidate(slot, pid)
        for slot in self._workers.keys() - found.keys():
            del self._workers[slot]
        return [self._workers[slot] for slot in sorted(found)]

    def _look(self, present: list[Candidate]) -> None:
        for worker in present:
            record = self._register.record(worker.slot)
            worker.weight = record.weight if record.weight > 0 else 1.0
            worker.answered_round = record.answered_round
            worker.sheddable_bytes = None if record.sheddable_bytes == UNKNOWN_BYTES else record.sheddable_bytes
            worker.held_bytes = max(held_bytes_of(worker.pid) - record.base_bytes, 0) if worker.pid else 0
        share_of = shares(present)
        for worker in present:
            self._register.tell(worker.slot, worker.held_bytes, share_of[worker.slot], worker.in_vain_count)


def _verdict(worker: Candidate, memory: int, *, is_critical: bool) -> int:
    """Return *memory* for who is asked, else as much of it as is no request; the shed fraction is the worker's own."""
    if worker.request_bytes:
        fraction = min(worker.request_bytes / max(worker.held_bytes, 1), 1.0)
        return verdict_word(level_of(memory), reasons_of(memory), fraction)
    if is_critical:
        return memory
    return verdict_word(min(level_of(memory), Level.WARN), 0, 0.0)
