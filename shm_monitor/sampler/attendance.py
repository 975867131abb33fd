"""The sampler's view of its present workers: who is there, what each holds, and what each is told."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from shm_monitor.sampler.rise import Rise
from shm_monitor.sampler.rounds import SETTLE_SECONDS, Candidate, Need, Rounds, shares
from shm_monitor.schema import Level
from shm_monitor.segment.flags import (
    ROUND_MASK,
    level_number,
    level_of,
    presses,
    reasons_of,
    request_word,
    shed_of,
    verdict_word,
)
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
LOOK_SECONDS = 1e-3  # pressed, so often for each worker: 35 us each are 4 % of a core at most, however many there are
LEAST_WEIGHT, MOST_WEIGHT = 1e-3, 1e3  # a worker may write anything: no share may be 0 or infinite by it
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
        self._looked_at = self._looked_at_asked_at = float("-inf")  # at all, and at those that are asked

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
            if pid:  # one that cannot be seen is told what everybody is
                verdicts[slot] = _worst([one.part(slot) for one in self._parties])
            asking = next((one for one in self._parties if one.workers[slot].request_bytes), self._parties[0])
            worker = asking.workers[slot]
            requests[slot] = request_word(worker.round_number, worker.request_bytes)
            if slot in records or worker.asked_at == now:
                self._register.tell(slot, asking.record(slot, max(one.vain(slot) for one in self._parties)))
        return Told(others, _worst([one.verdict for one in pressures]), verdicts, requests)

    def _look(self, pressures: Sequence[Pressure], now: float) -> dict[int, Record]:
        """Look up what each holds, where it matters now; return the records that were read, by slot."""
        for party in self._parties:
            party.admit(self._pids)
        is_pressed = any(level_number(one.verdict) >= Level.WARN for one in pressures)
        asked = {slot for party in self._parties for slot in party.asked}
        slots: Iterable[int] = ()
        if now - self._looked_at >= (LOOK_SECONDS * len(self._pids) if is_pressed else SHOWN_SECONDS):
            slots, self._looked_at, self._looked_at_asked_at = self._pids, now, now
        elif now - self._looked_at_asked_at >= LOOK_SECONDS * len(asked):
            slots, self._looked_at_asked_at = asked, now
        records = {slot: self._register.record(slot) for slot in sorted(slots)}
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
        self._verdict = self._rest = 0  # what is told to all, and to who is not asked
        self._is_listed, self._is_known = False, True  # who holds it: by a list, and at all

    @property
    def asked(self) -> list[int]:
        """The slots of those that are asked now."""
        return [slot for slot, worker in self.workers.items() if worker.request_bytes]

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
            worker.weight = min(max(record.weight, LEAST_WEIGHT), MOST_WEIGHT) if record.weight > 0 else 1.0
            worker.sheddable_bytes = None if record.sheddable_bytes == UNKNOWN_BYTES else record.sheddable_bytes
            worker.is_willing = bool((record.wants or WANTS_ALL) & self._holding.want)
            if pressure.held_bytes is not None:  # as old as the driver's list: an answer may be newer
                worker.held_bytes = pressure.held_bytes.get(worker.pid, 0)
                continue
            worker.answered_round = record.answered_round
            worker.held_bytes = max(held_bytes_of(worker.pid) - record.base_bytes, 0) if worker.pid else 0
        if not records:
            return
        sharers = [one for one in self.workers.values() if one.held_bytes or pressure.held_bytes is None]
        self._shares = dict(shares(sharers))

    def turn(self, pressure: Pressure, now: float, busy: set[int]) -> None:
        """Ask those that are not *busy* with something else, and add who is then."""
        over, level = pressure.over, level_of(pressure.verdict)
        self._verdict, self._rest = pressure.verdict, verdict_word(min(level, Level.WARN), 0, 0.0)
        self._is_listed = pressure.held_bytes is not None
        self._is_known = not self._is_listed or any(one.held_bytes for one in self.workers.values())
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
        busy.update(self.asked)

    def part(self, slot: int) -> int:
        """Return what of the verdict the worker in *slot* is told.

        All of it to who is asked, and to all that hold anything when it is critical; else as much as is no request.
        Where nobody who is present is known to hold anything, it is told to all.
        """
        worker = self.workers[slot]
        if not worker.is_willing:
            return 0
        if worker.request_bytes:
            fraction = min(worker.request_bytes / max(worker.held_bytes, 1), 1.0)
            return verdict_word(level_number(self._verdict), reasons_of(self._verdict), fraction)
        is_meant = worker.held_bytes > 0 or not self._is_listed
        if not self._is_known or (is_meant and level_number(self._verdict) == Level.CRITICAL):
            return self._verdict
        return self._rest

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
    if len(set(words)) == 1:
        return words[0]
    word = max(words, key=lambda one: (level_number(one), shed_of(one)))
    reasons = 0
    for one in words:
        if presses(one):
            reasons |= reasons_of(one)
    return verdict_word(level_number(word), reasons, shed_of(word)) if reasons else word
