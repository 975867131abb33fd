"""How many tasks may run at once: as many as are asked for, as long as the memory that they will take is there.

A task takes its memory some time after it was let in, so what is measured now is not what was promised. So the largest
drop of what was left, per running task, is taken for what a task takes; what those that run have not taken yet counts
as gone. Until one has ended, that is not known: the first one runs alone, and then one more is let in for each that
ended, as TCP does in slow start (RFC 5681). Those that take long are twice as many each time that they have run for
twice as long and took no more in the second half of it; tasks that grow all the time wait for the end of the first.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from itertools import repeat

from shm_monitor.acting.governor import Governor
from shm_monitor.acting.pending_futures import PendingFutures
from shm_monitor.forks import renew_in_child
from shm_monitor.light import TYPE_CHECKING
from shm_monitor.worker.outlook import Outlook

if TYPE_CHECKING:
    from collections.abc import Callable

    from shm_monitor.worker.reader import Reader

LOOKS_PER_SAMPLE = 4
FORGET = 1 / 4  # of the difference, where all tasks of one generation together showed less than those before
SAMPLES_TO_KNOW = 2  # a task that lived through so many has been seen with all that it takes
SETTLED_SAMPLES = 4  # the first look at whether a task that goes on has stopped growing; the next after twice as many
STILL = 1.1  # one that takes at most so many times what it took at half its age
FIRST_WAIT_SECONDS = 0.001  # a new thread of a pool runs its first task before the pool counts it as one of its own
PLACES = 256  # given out at once; so that lock and bookkeeping are a hundredth of the cost of a submit


class Admission:
    """Counts running tasks against a limit that follows the memory. Safe from any number of threads.

    Between two looks at the memory the places that are left are given out beforehand: who comes takes one by a single
    operation on a deque, which is atomic. Who has come and who has ended is counted by the next one who finds no place.

    Attributes:
        places: taking one is entering, as long as neither the time of *next_look* has come nor *ask* says True.
        next_look: by the clock.
        ask: whether it presses.
        pending: tasks that are looked at; of others ``leave`` has to be called.
        task_bytes: what a task was seen to take; 0 as long as nothing was.
    """

    def __init__(
        self,
        reader: Reader,
        limit: int | Governor,
        *,
        min_running: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Let in at most *limit*, and *min_running* whatever presses."""
        self.task_bytes = 0.0
        self.pending = PendingFutures()
        self._reader = reader
        self.ask = reader.should_prune
        self._limit = limit
        self._min_running = min_running
        self._clock = clock
        self._lock = threading.RLock()  # a callback of a task that has ended by now is called at once
        self._changed = threading.Condition(self._lock)
        self._waiting = 0
        self._closed = False
        self._counted = self._given = 0  # running, and places given out, when they were counted last
        self.places: deque[None] = deque()
        self._ended: deque[None] = deque()
        self._allowed = min_running
        self.next_look = -math.inf
        self._outlook = Outlook(has_sample=False)
        self._idle_left = math.nan
        self._slow_start = min_running
        self._is_known = False
        self._first_number = 0
        self._began = self._next_age = self._seen_before = 0.0
        self._settling = 0  # samples until none can show a task that has ended
        self._seen_bytes, self._generation = 0.0, 0
        renew_in_child(self, Admission._begin_in_child)

    def _begin_in_child(self) -> None:
        """Count anew: no task of the parent runs in a forked child. What a task takes is still known."""
        task_bytes, is_closed = self.task_bytes, self._closed
        Admission.__init__(self, self._reader, self._limit, min_running=self._min_running, clock=self._clock)
        self.task_bytes, self._closed = task_bytes, is_closed

    @property
    def running(self) -> int:
        """How many tasks are let in and have not ended."""
        with self._lock:
            self._count(every_end=True)
            return self._counted

    def enter(self, max_wait: float | None, *, must_not_wait: Callable[[], bool] = lambda: False) -> bool:
        """Let one task in, waiting up to *max_wait* seconds; return False when they were not enough.

        Args:
            max_wait: None waits for as long as it takes.
            must_not_wait: asked again and again; lets the task in, whatever presses, when it says so.

        Raises:
            RuntimeError: it was closed, maybe while this waited.
        """
        with self._lock:
            self._refuse_when_closed()
            if must_not_wait() or self._has_room():
                self._take()
                return True
            return self._wait(max_wait, must_not_wait)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def force(self) -> None:
        """Let one task in, whatever presses."""
        with self._lock:
            self._counted += 1

    def leave(self, _: object = None) -> None:
        """One task has ended; may be its done callback."""
        self._ended.append(None)
        self._wake()

    def _wake(self, _: object = None) -> None:
        if self._waiting:  # who begins to wait after this looks once more, and finds who has ended
            with self._lock:
                self._changed.notify()

    def close(self) -> None:
        """Let nobody in any more; who waits is told."""
        with self._lock:
            self._closed = True
            self._count(every_end=True)
            self._changed.notify_all()

    def _wait(self, max_wait: float | None, must_not_wait: Callable[[], bool]) -> bool:
        deadline = math.inf if max_wait is None else self._clock() + max_wait
        self._waiting += 1
        longest = FIRST_WAIT_SECONDS
        try:
            while True:
                self.pending.call_at_end(self._wake)
                if must_not_wait() or self._has_room():
                    self._take()
                    return True
                left = min(longest, deadline - self._clock())
                if left <= 0:
                    return False
                self._changed.wait(left)
                self._refuse_when_closed()
                longest = self._outlook.interval_seconds / LOOKS_PER_SAMPLE
        finally:
            self._waiting -= 1

    def _take(self) -> None:
        """Let one task in, and give out the places that are left, but not those that somebody waits for."""
        self._counted += 1
        if not self._waiting and not self._given:
            self._given = max(min(self._allowed - self._counted, PLACES), 0)
            self.places.extend(repeat(None, self._given))

    def _count(self, *, every_end: bool) -> None:
        """Take the places back that nobody took, and count who came and who ended since the last time."""
        taken = self._given
        while self.places:
            try:
                self.places.pop()
            except IndexError:  # somebody came in between
                break
            taken -= 1
        self._given = 0
        ended = len(self._ended)
        for _ in range(ended):
            self._ended.popleft()
        ended += self.pending.take_ended() if every_end else self.pending.take_first_ended()
        self._counted += taken - ended
        if ended:
            self._learn_from_ends(ended)

    def _has_room(self) -> bool:
        for every_end in (self._is_due(), True):
            self._count(every_end=every_end)
            if self._is_due():
                self._look()
            if self._counted < self._allowed:
                return True
        return False

    def _is_due(self) -> bool:
        return self._clock() >= self.next_look or self.ask()

    def _look(self) -> None:
        """Decide how many may run until the next look."""
        now = self._clock()
        if now >= self.next_look:
            before, self._outlook = self._outlook, self._reader.outlook()
            self.next_look = now + self._outlook.interval_seconds / LOOKS_PER_SAMPLE
            if self._outlook.number != before.number or math.isnan(self._idle_left):
                self._learn()
        most = self._limit.step() if isinstance(self._limit, Governor) else self._limit
        self._allowed = max(min(most, self._fitting(most)), self._min_running)

    def _learn(self) -> None:
        """Learn from a new sample: what is left without tasks, or what each of those that run has taken."""
        left = self._outlook.left_bytes
        if self._counted:
            per_task = (self._idle_left - left) / self._counted
            self._seen_bytes = max(self._seen_bytes, per_task)
            self.task_bytes = max(self.task_bytes, self._seen_bytes)
            if not self._is_known:
                self._learn_from_age()
        elif self._settling > 0:
            self._settling -= 1
        else:
            self._idle_left = left
            self._first_number = self._outlook.number
            self._began, self._next_age = self._clock(), SETTLED_SAMPLES * self._outlook.interval_seconds

    def _learn_from_age(self) -> None:
        """Learn from tasks that run for long: twice as many, where they took no more since half of their age."""
        if self._clock() - self._began < self._next_age:
            return
        if 0 < self._seen_bytes <= STILL * self._seen_before:
            self._slow_start *= 2
        self._seen_before = self._seen_bytes
        self._next_age *= 2

    def _learn_from_ends(self, count: int) -> None:
        """Learn from tasks that have ended; after as many as run at once, what they took is what tasks take now."""
        self._settling = 2
        self._generation += count
        if not self._is_known:
            self._slow_start += count
            self._is_known = self._outlook.number - self._first_number >= SAMPLES_TO_KNOW
            if self._outlook.is_live:
                self.next_look = -math.inf
        if self._generation > self._counted and self._seen_bytes > 0:
            self.task_bytes += (self._seen_bytes - self.task_bytes) * FORGET
            self._seen_bytes, self._generation = 0.0, 0

    def _fitting(self, most: int) -> int:
        """Return how many tasks may run in all: to the limit while calm, to the target while pressed."""
        outlook, pressed = self._outlook, self.ask()
        if not outlook.is_live:
            return most
        room = outlook.below_target_bytes if pressed else outlook.below_limit_bytes
        if math.isnan(room) or math.isnan(self._idle_left):
            return self._min_running if pressed else most
        if not self._is_known:
            most = min(most, self._slow_start)
        if self.task_bytes <= 0:
            return self._min_running if pressed else most
        taken = self._idle_left - outlook.left_bytes
        promised = max(self._counted * self.task_bytes - max(taken, 0.0), 0.0)
        return min(self._counted + math.floor((room - promised) / self.task_bytes), most)
