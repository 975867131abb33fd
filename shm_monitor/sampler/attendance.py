"""The sampler's view of its present workers: who is there, what each holds, and what each is told."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from shm_monitor.sampler.rise import Rise
from shm_monitor.sampler.rounds import SETTLE_SECONDS, Candidate, Need, Rounds, shares
from shm_monitor.schema import Level
from shm_monitor.segment.flags import ROUND_MASK, level_of, reasons_of, request_word, shed_of, verdict_word
from shm_monitor.segment.presence import (
    HAS_PRESENCE,
    UNKNOWN_BYTES,
    WANTS_ALL,
    Record,
    Register,
    SamplersPart,
    held_bytes_of,
)

if TYPE_CHECKING:
    from shm_monitor.sampler.holdings import Holding, Pressure

SHOWN_SECONDS = 10.0  # calm, what workers hold is looked up so often, for people
ROUND_LOOK_SECONDS = 0.1  # while somebody is asked, memory is looked at so often: what is given back is seen soon


class Told(NamedTuple):
    """What the workers are told in one turn.

    Args:
        others: the verdict of all limits that nothing is asked for.
        everybody: the verdict of who is not (yet) known: that of what is asked for.
        verdicts: by slot, of the others; requests likewise.
    """

    others: int
    everybody: int
    verdicts: dict[int, int]
    requests: dict[int, int]


class Attendance:
    """Looks once per sample; costs one failed open(2) while nobody has ever presented itself."""

    def __init__(
        self,
        name: str,
        holdings: Sequence[Holding],
        clock: Callable[[], float] = time.monotonic,
        *,
        gpu_interval_seconds: float = 1.0,
    ) -> None:
        """Look at the workers of the sampler *name*, and ask them for *holdings*: for the first of them first."""
        self._register = Register(name)
        self._clock = clock
        self._pids: dict[int, int] = {}  # by slot
        numbers = _numbers(self._register)
        self._parties = [
            _Party(one, numbers, SETTLE_SECONDS + (gpu_interval_seconds if one.limit else 0.0)) for one in holdings
        ]
        self._looked_at = float("-inf")

    @property
    def is_wanted(self) -> bool:
        """True once anybody has presented itself."""
        return HAS_PRESENCE and self._register.exists

    @property
    def wait_seconds(self) -> float:
        """In how many seconds memory should be looked at again; infinite while nobody is asked for it."""
        is_asked = any(worker.request_bytes for worker in self._parties[0].workers.values())
        return ROUND_LOOK_SECONDS if is_asked else math.inf

    def turn(self, pressures: Sequence[Pressure], others: int) -> Told:
        """Return what each worker is told.

        Args:
            pressures: of each holding.
            others: the worst verdict of any other limit.
        """
        now = self._clock()
        self._pids = dict(self._register.holders())
        records = self._look(pressures, now)
        busy: set[int] = set()
        for party, pressure in zip(self._parties, pressures, strict=True):
            party.turn(pressure, now, busy)
        verdicts, requests = {}, {}
        for slot, pid in self._pids.items():
            parts = [party.part(slot, one) for party, one in zip(self._parties, pressures, strict=True)]
            if pid:  # one that cannot be seen is told what everybody is
                verdicts[slot] = _worst(parts)
            asking = next((one for one in self._parties if one.workers[slot].request_bytes), self._parties[0])
            worker = asking.workers[slot]
            requests[slot] = request_word(worker.round_number, worker.request_bytes)
            if slot in records:
                self._register.tell(slot, asking.record(slot, max(one.vain(slot) for one in self._parties)))
        return Told(others, _worst([one.verdict for one in pressures]), verdicts, requests)

    def _look(self, pressures: Sequence[Pressure], now: float) -> dict[int, Record]:
        """Look up what each holds, where it matters now; return the records that were read, by slot."""
        for party in self._parties:
            party.admit(self._pids)
        is_due = now - self._looked_at >= SHOWN_SECONDS
        if not is_due and all(level_of(one.verdict) < Level.WARN for one in pressures):
            return {}
        self._looked_at = now
        records = {slot: self._register.record(slot) for slot in sorted(self._pids)}
        for party, pressure in zip(self._parties, pressures, strict=True):
            party.look(records, pressure)
        return records


class _Party:
    """The workers as holders of one thing."""

    def __init__(self, holding: Holding, numbers: Iterator[int], settle_seconds: float) -> None:
        self.workers: dict[int, Candidate] = {}
        self._holding = holding
        self._settle_seconds = settle_seconds
        self._rounds, self._rise = Rounds(numbers), Rise()
        self._shares: dict[int, float] = {}

    def admit(self, pids: dict[int, int]) -> None:
        """Know the workers with these *pids*, by slot, and nobody else."""
        for slot, pid in pids.items():
            known = self.workers.get(slot)
            if known is None or known.pid != pid:
                self.workers[slot] = Candidate(slot, pid, self._settle_seconds)
        for slot in self.workers.keys() - pids.keys():
            del self.workers[slot]

    def look(self, records: dict[int, Record], pressure: Pressure) -> None:
        """Take over what the workers say in their *records*, and look up what each holds."""
        for slot, record in records.items():
            worker = self.workers[slot]
            worker.weight = record.weight if record.weight > 0 else 1.0
            worker.sheddable_bytes = None if record.sheddable_bytes == UNKNOWN_BYTES else record.sheddable_bytes
            worker.is_willing = bool((record.wants or WANTS_ALL) & self._holding.want)
            if pressure.held_bytes is not None:  # as old as the driver's list: an answer may be newer
                worker.held_bytes = pressure.held_bytes.get(worker.pid, 0)
                continue
            worker.answered_round = record.answered_round
            worker.held_bytes = max(held_bytes_of(worker.pid) - record.base_bytes, 0) if worker.pid else 0
        sharers = [one for one in self.workers.values() if one.held_bytes or pressure.held_bytes is None]
        self._shares = dict(shares(sharers))

    def turn(self, pressure: Pressure, now: float, busy: set[int]) -> None:
        """Ask those that are not *busy* with something else, and add who is then."""
        over, level = pressure.over, level_of(pressure.verdict)
        self._rise.turn(over.size_bytes, over.place, now)
        for slot in busy:
            self.workers[slot].request_bytes = 0  # one thing after the other
        seen = [
            worker
            for slot, worker in self.workers.items()
            if worker.pid and worker.held_bytes and worker.is_willing and slot not in busy
        ]
        deficit = over.size_bytes if level >= Level.PRUNE and over.size_bytes > 0 else 0.0
        need = Need(deficit, over.room_bytes, self._rise.rate)
        self._rounds.turn(seen, need, now, is_critical=level is Level.CRITICAL)
        busy.update(slot for slot, worker in self.workers.items() if worker.request_bytes)

    def part(self, slot: int, pressure: Pressure) -> int:
        """Return what of the verdict the worker in *slot* is told.

        All of it to who is asked, else as much as is no request. Where nobody who is present is known to hold anything,
        it is told to all.
        """
        worker, memory = self.workers[slot], pressure.verdict
        if not worker.is_willing:
            return 0
        if worker.request_bytes:
            fraction = min(worker.request_bytes / max(worker.held_bytes, 1), 1.0)
            return verdict_word(level_of(memory), reasons_of(memory), fraction)
        counts = pressure.held_bytes is None or worker.held_bytes > 0
        if level_of(memory) is Level.CRITICAL and counts:
            return memory
        if pressure.held_bytes is not None and not any(one.held_bytes for one in self.workers.values()):
            return memory
        return verdict_word(min(level_of(memory), Level.WARN), 0, 0.0)

    def vain(self, slot: int) -> int:
        """Return how often in a row the worker in *slot* was asked in vain."""
        return self.workers[slot].in_vain_count

    def record(self, slot: int, in_vain_count: int) -> SamplersPart:
        """Return what is said of the worker in *slot*."""
        worker = self.workers[slot]
        share = self._shares.get(slot, 0.0)
        return SamplersPart(worker.held_bytes, share, in_vain_count, self._holding.limit, worker.round_number)


def _numbers(register: Register) -> Iterator[int]:
    """Yield the numbers of rounds, from the newest of an earlier sampler on: a worker takes a new one for a new one."""
    known = [register.record(slot).round_number for slot, _ in register.holders()]
    yield from (one for one in itertools.count(max(known, default=0) + 1) if one & ROUND_MASK)


def _worst(words: Sequence[int]) -> int:
    """Return the word of the highest level, and of the most to shed among those, with the reasons of all of them."""
    word = max(words, key=lambda one: (level_of(one), shed_of(one)))
    reasons = 0
    for one in words:
        if level_of(one) >= Level.PRUNE:
            reasons |= reasons_of(one)
    return verdict_word(level_of(word), reasons, shed_of(word)) if reasons else word
