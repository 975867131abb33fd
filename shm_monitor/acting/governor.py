"""The size of anything that takes memory: a micro-batch, a pool's concurrency, a prefetch queue.

Three rules, in the order in which they bind:

* **predict**: never more units than ``safety`` of what is left can hold, by what work was seen to take; down to half
  of that where work takes so long that nothing seen at its beginning says what is left at its end;
* **cut** when pressed, at most once per ``settle``; once the usage was back at its target, only when over the limit;
* **grow** when calm, and only what was really used: back to where it pressed twofold per ``settle``, beyond that, and
  after a relapse, by ``increase`` per ``hold``. Measured: with one speed for both, a loop of 14 s beside a neighbour
  spent 10 s at half of what was free.

Source: additive increase, multiplicative decrease with an application limit as in Netflix concurrency-limits
(AIMDLimit), slow start and a remembered threshold as in TCP (RFC 5681).
"""

from __future__ import annotations

import logging
import math
import threading
import time

from shm_monitor.acting.footprint import LEARN_DOWN, Footprint
from shm_monitor.errors import MonitorError
from shm_monitor.forks import renew_in_child
from shm_monitor.light import TYPE_CHECKING
from shm_monitor.worker.attaching import attach
from shm_monitor.worker.outlook import Outlook

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal

    from shm_monitor.worker.reader import Reader

    Trouble = Literal["", "floor", "external"]

_log = logging.getLogger("shm_monitor")

# A torch loop that learned from 1/32 of its batch on, doubling, outlived a neighbour that killed every larger start.
START_SHARE = 32
FUTILE_CUTS = 2
BEYOND_SHARE = 64  # beyond the size that relapsed, a 64th of full per hold: one, for the batches of most people
FORGET_HOLDS = 8  # calm for so long, a relapse says nothing any more
LOOKS_PER_SAMPLE = 4
IN_USE_SHARE = 0.5  # of what a unit of work takes at its peak, while a sample is taken: 0 to 1, nobody knows
SIGHT_SAMPLES = 5  # with 15 jobs per core a slice took 2 s, a neighbour 300 MB meanwhile: 2 of 43 loops were killed


class Governor:
    """Says before each unit of work how large it may be: ``size = governor.step()``; told after it by ``observe``.

    Safe from any number of threads; survives fork; pickles with what it has learned. Costs, calm, about the price of
    two questions. Raises nothing for what a sampler does (but for a reader with ``on_stale="raise"``): without one the
    size is *full*; one that dies leaves the size as it is for *hold* seconds, then it is *full* again.

    Attributes:
        full: the size without pressure.
        floor: the smallest size, whatever presses.
        size: what ``step`` said last.
        footprint: what work of so many units takes, as learned by ``observe``; its ``bytes_per_unit`` is 0 before.
        trouble: ``floor`` when the smallest size is reached and it still presses, ``external`` when two cuts had no
            effect, so that the pressure is not ours; else empty. Each is logged once per episode.
    """

    def __init__(  # noqa: PLR0913 - each is a knob with a default that was measured
        self,
        full: int,
        *,
        floor: int = 1,
        reader: Reader | None = None,
        decrease: float = 0.5,
        increase: int | None = None,
        settle: float = 2.0,
        hold: float = 10.0,
        safety: float = 0.6,
        headroom: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin at a 32nd of *full*, or at *floor*; without a sampler at *full*.

        Args:
            full: the size without pressure.
            floor: the smallest size.
            reader: None asks for the memory limit of the default sampler, as ``attach()`` does.
            decrease: what is left of the size after a cut, at most.
            increase: units per *hold*; None for a 16th of *full*.
            settle: seconds that a cut has for its effect, before the next one and before each step back.
            hold: seconds of calm before each growth beyond that, and before each one after a relapse.
            safety: share of the bytes left that one unit of work may take.
            headroom: bytes left, where the caller knows better than the sampler: a GPU's free memory together with
                what its allocator keeps; None asks the reader.
            clock: seconds, monotonic.

        Raises:
            ValueError: numbers that contradict each other.
        """
        _check(full=full, floor=floor, decrease=decrease, safety=safety, settle=settle, hold=hold)
        self.full = full
        self.floor = floor
        self.footprint = Footprint()
        self.trouble: Trouble = ""
        self._reader = attach(timeout=0.0, required=False, watch=["memory"]) if reader is None else reader
        self._ask = self._reader.should_prune
        self._decrease = decrease
        self._increase = max(full // 16, 1) if increase is None else increase
        self._settle = settle
        self._hold = hold
        self._safety = safety
        self._headroom = headroom
        self._clock = clock
        self._outlook = Outlook(has_sample=False)
        self._next_outlook = self._next_look = -math.inf
        self._seen_alive = False
        self._said_absent = False
        self._dead_since: float | None = None
        self._goal = full
        self._used = 0
        self._stepped_at, self._work_seconds = clock(), 0.0
        self._last_work = (math.inf, -math.inf, 0)  # began, ended, units
        self._own_bytes = 0.0
        self._cuts = self._futile = 0  # of this episode
        self._fraction_before = 0.0
        self._cut_at = self._changed_at = self._grown_at = -math.inf
        self._relapsed = self._quarter = self._pressed_at_size = 0
        self._is_back = False
        self.size = max(floor, full // START_SHARE)
        self._renew_lock()
        renew_in_child(self, Governor._renew_lock)

    def _renew_lock(self) -> None:
        """Take a lock of one's own; of what another thread changed meanwhile, each number stands for itself."""
        self._lock = threading.Lock()

    def step(self) -> int:
        """Return how large the next unit of work may be, *floor* to *full*."""
        now = self._stepped_at = self._clock()
        if now >= self._next_look or self._ask():
            with self._lock:
                return self._look(now)
        return self.size

    def observe(self, units: int, peak_bytes: float) -> None:
        """Learn that work of *units* took *peak_bytes* more than there was in use before it.

        Of main memory: the peak above the base. Of a GPU: what its framework says,
        such as ``torch.cuda.max_memory_allocated() - before``. 0 where nothing is known but that the units were used.
        """
        if units <= 0:
            return
        with self._lock:
            self._used = max(self._used, units)
            now = self._clock()
            self._last_work = (self._stepped_at, now, units)
            self._work_seconds = max(now - self._stepped_at, self._work_seconds * (1 - LEARN_DOWN))
            if peak_bytes > 0:
                self.footprint.learn(units, peak_bytes)

    def _look(self, now: float) -> int:
        """Decide anew; at most every quarter of a sample the numbers behind it are read anew."""
        if now >= self._next_outlook:
            self._read(now)
        if not self._outlook.is_live:
            self._next_look = self._next_outlook
            return self._unwatched(now)
        self._seen_alive, self._dead_since = True, None
        pressed = self._ask()
        (self._when_pressed if pressed else self._when_calm)(now)
        most = min(self._goal, self._cap())
        may_grow = not pressed or (self._outlook.shed_fraction <= 0 and math.isinf(self._outlook.seconds_to_end))
        self.size = max(min(most, 2 * self.size if may_grow else self.size), self.floor)
        self._next_look = now if self.size < most else self._next_outlook
        return self.size

    def _read(self, now: float) -> None:
        """Take in the newest sample; one from the midst of our work counts as used what is free again by now."""
        seen, self._outlook = self._outlook.number, self._reader.outlook()
        self._next_outlook = now + self._outlook.interval_seconds / LOOKS_PER_SAMPLE
        if self._outlook.number != seen:
            began, ended, units = self._last_work
            is_in_work = began < now - self._outlook.age_seconds < ended
            self._own_bytes = IN_USE_SHARE * self.footprint.bytes_of(units) if is_in_work else 0.0

    def _cap(self) -> int:
        """Return how many units fit into what will be left when the next unit of work ends."""
        left = self._outlook.left_bytes + self._own_bytes if self._headroom is None else self._headroom()
        if not self.footprint.bytes_per_unit or math.isnan(left):
            return self.full
        end = self._outlook.seconds_to_end
        still_there = max(1 - self._work_seconds / end, 0.0) if end > 0 else 0.0
        sight = SIGHT_SAMPLES * self._outlook.interval_seconds
        in_sight = min(max(sight / self._work_seconds, 0.5), 1.0) if self._work_seconds else 1.0
        return self.footprint.units_in(self._safety * max(left, 0.0) * still_there * in_sight)

    def _when_pressed(self, now: float) -> None:
        """Cut, once per *settle*, while usage is over its target and cuts have an effect."""
        fraction = self._outlook.shed_fraction
        self._is_back = self._is_back or (self._cuts > 0 and fraction <= 0)
        is_enough = self._is_back and (fraction <= 0 or self._outlook.below_limit_bytes >= 0)
        if now - self._cut_at < self._settle or is_enough or self.trouble:
            return
        if self._cuts:
            self._futile = self._futile + 1 if fraction >= self._fraction_before else 0
        size = min(self._goal, self.size)
        if self._futile >= FUTILE_CUTS:
            self._say("external", f"{FUTILE_CUTS} cuts to {size} had no effect: the pressure is not of this work")
        elif size <= self.floor:
            self._say("floor", f"the smallest size, {self.floor}, is reached and it still presses")
        else:
            self._cut(now, size, fraction)

    def _cut(self, now: float, size: int, fraction: float) -> None:
        self._goal = max(self.floor, int(size * min(self._decrease, 1 - fraction)))
        if now - self._grown_at <= 2 * self._hold:
            self._relapsed = size
            self._quarter = max((size - self._goal) // 4, 1)
        if not self._cuts:
            self._pressed_at_size = size
            _log.info("size %d -> %d; %s", size, self._goal, self._why())
        self._cuts += 1
        self._fraction_before = fraction
        self._cut_at = self._changed_at = now
        self._used, self._is_back = 0, False

    def _when_calm(self, now: float) -> None:
        """Grow what was used at least by half: back at once per *settle*, to where it pressed; then once per *hold*."""
        if self._cuts or self.trouble:
            self._begin_episode()
        if now - self._cut_at > FORGET_HOLDS * self._hold:
            self._relapsed = 0
        is_idle = self._used and 2 * self._used < self._goal
        wait = self._settle if self._is_returning() else self._hold
        if self._goal >= self.full or now - self._changed_at < wait or is_idle:
            return
        self._goal = min(self._goal + self._growth(), self.full)
        self._changed_at = self._grown_at = now
        self._used = 0

    def _is_returning(self) -> bool:
        return not self._relapsed and self._goal < self._pressed_at_size

    def _growth(self) -> int:
        """Return the units to grow by: twofold to where it pressed; where that relapsed in quarters, slowly beyond."""
        if self._is_returning():
            return min(self._goal, self._pressed_at_size - self._goal)
        if not self._relapsed:
            return self._increase
        if self._goal < self._relapsed:
            return min(self._quarter, self._relapsed - self._goal)
        return min(max(self.full // BEYOND_SHARE, 1), self._increase)

    def _unwatched(self, now: float) -> int:
        """Return *full* where no sampler ever was; keep the size of one that died for *hold* seconds."""
        if not self._seen_alive:
            if not self._said_absent:
                self._said_absent = True
                name = self._reader.name
                _log.warning("no sampler %r: sizes stay at %d; try: shm-monitor run --name %s", name, self.full, name)
            self.size = self.full
        elif self._dead_since is None:
            self._dead_since = now
        elif now - self._dead_since >= self._hold and not self._ask():  # on_stale="always" asks for caution
            self.size = self._goal = self.full
        return self.size

    def _begin_episode(self) -> None:
        self._cuts = self._futile = 0
        self._fraction_before = 0.0
        self.trouble = ""

    def _say(self, trouble: Trouble, text: str) -> None:
        self.trouble = trouble
        _log.warning("%s; %s", text, self._why())

    def _why(self) -> str:
        try:
            return str(self._reader.explain())
        except MonitorError as error:
            return str(error)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the lock behind."""
        return {key: value for key, value in self.__dict__.items() if key not in {"_lock", "_ask"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a lock of one's own, and look anew."""
        self.__dict__.update(state)
        self._ask = self._reader.should_prune
        self._renew_lock()
        renew_in_child(self, Governor._renew_lock)


def _check(**given: float) -> None:
    """Raise ValueError with what was given and what is allowed."""
    allowed = {
        "full": given["full"] >= 1,
        "floor": 1 <= given["floor"] <= given["full"],
        "decrease": 0 < given["decrease"] < 1,
        "safety": 0 < given["safety"] <= 1,
        "settle": given["settle"] >= 0,
        "hold": given["hold"] >= 0,
    }
    wrong = [key for key, fine in allowed.items() if not fine]
    if wrong:
        rule = "1 <= floor <= full, 0 < decrease < 1, 0 < safety <= 1, settle and hold 0 or more"
        raise ValueError(f"{wrong[0]}={given[wrong[0]]}; allowed is: {rule}")
