"""The sampler's view of its present workers: who is there, what each holds, and what each is told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from shm_monitor.sampler.rounds import Candidate, Rounds, shares
from shm_monitor.schema import Level
from shm_monitor.segment.flags import level_of, reasons_of, request_word, verdict_word
from shm_monitor.segment.presence import HAS_PRESENCE, UNKNOWN_BYTES, Register, held_bytes_of

if TYPE_CHECKING:
    from collections.abc import Callable

SHOWN_SECONDS = 10.0  # calm, what workers hold is looked up so often, for people


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
        self._rounds = Rounds()
        self._looked_at = float("-inf")

    def turn(self, memory: int, others: int, deficit_bytes: float) -> Told | None:
        """Return what each worker is told; None while nobody has presented itself.

        Args:
            memory: the worst verdict of a limit of memory; others: of any other limit.
            deficit_bytes: how much that limit is over its target.
        """
        if not HAS_PRESENCE or not self._register.exists:
            return None
        now, level = self._clock(), level_of(memory)
        present = self._present()
        if level >= Level.WARN or now - self._looked_at >= SHOWN_SECONDS:
            self._looked_at = now
            self._look(present)
        seen = [worker for worker in present if worker.pid and worker.held_bytes]
        self._rounds.turn(
            seen, deficit_bytes if level >= Level.PRUNE else 0.0, now, is_critical=level is Level.CRITICAL
        )
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
