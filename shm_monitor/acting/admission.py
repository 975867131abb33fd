"""How many tasks may run at once: as many as are asked for, as long as the memory that they will take is there.

A task takes its memory some time after it was let in, so what is measured now is not what was promised. So the largest
drop of what was left, per running task, is taken for what a task takes; what those that run have not taken yet counts
as gone. The first one runs alone, unless tasks are shorter than what is between two samples: then one more is let in
for each that ended, as TCP does in slow start (RFC 5681).
"""

from __future__ import annotations

import math
import threading
import time

from shm_monitor.acting.governor import Governor
from shm_monitor.light import TYPE_CHECKING
from shm_monitor.worker.outlook import Outlook

if TYPE_CHECKING:
    from collections.abc import Callable

    from shm_monitor.worker.reader import Reader

LOOKS_PER_SAMPLE = 4
FORGET = 1 / 4  # of the difference, where all tasks of one generation together showed less than those before
SAMPLES_TO_KNOW = 2  # a task that lived through so many has been seen with all that it takes


class Admission:
    """Counts running tasks against a limit that follows the memory. Safe from any number of threads.

    Attributes:
        running: tasks let in and not yet ended.
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
        self.running = 0
        self.task_bytes = 0.0
        self._reader = reader
        self._ask = reader.should_prune
        self._limit = limit
        self._min_running = min_running
        self._clock = clock
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0
        self._closed = False
        self._allowed = min_running
        self._next_look = -math.inf
        self._outlook = Outlook(has_sample=False)
        self._idle_left = math.nan
        self._slow_start = min_running
        self._is_known = False
        self._first_number = 0
        self._settling = 0  # samples until none can show a task that has ended
        self._seen_bytes, self._generation = 0.0, 0

    def enter(self, max_wait: float | None, *, may_block: bool = True) -> bool:
        """Let one task in, waiting up to *max_wait* seconds; return False when they were not enough.

        Raises:
            RuntimeError: it was closed, maybe while this waited.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if not may_block or self._has_room():
                self.running += 1
                return True
            return self._wait(max_wait)

    def force(self) -> None:
        """Let one task in, whatever presses."""
        with self._lock:
            self.running += 1

    def leave(self) -> None:
        """One task has ended."""
        with self._lock:
            self.running -= 1
            self._learn_from_end()
            if self._waiting:
                self._changed.notify()

    def close(self) -> None:
        """Let nobody in any more; who waits is told."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()

    def _wait(self, max_wait: float | None) -> bool:
        deadline = None if max_wait is None else self._clock() + max_wait
        self._waiting += 1
        try:
            while not self._has_room():
                left = self._outlook.interval_seconds / LOOKS_PER_SAMPLE
                if deadline is not None:
                    left = min(left, deadline - self._clock())
                if left <= 0:
                    return False
                self._changed.wait(left)
                if self._closed:
                    raise RuntimeError("cannot schedule new futures after shutdown")
            self.running += 1
            return True
        finally:
            self._waiting -= 1

    def _has_room(self) -> bool:
        if self._clock() >= self._next_look or self._ask():
            self._look()
        return self.running < self._allowed

    def _look(self) -> None:
        """Decide how many may run until the next look."""
        now = self._clock()
        if now >= self._next_look:
            before, self._outlook = self._outlook, self._reader.outlook()
            self._next_look = now + self._outlook.interval_seconds / LOOKS_PER_SAMPLE
            if self._outlook.number != before.number or math.isnan(self._idle_left):
                self._learn()
        most = self._limit.step() if isinstance(self._limit, Governor) else self._limit
        self._allowed = max(min(most, self._fitting(most)), self._min_running)

    def _learn(self) -> None:
        """Learn from a new sample: what is left without tasks, or what each of those that run has taken."""
        left = self._outlook.left_bytes
        if self.running:
            per_task = (self._idle_left - left) / self.running
            self._seen_bytes = max(self._seen_bytes, per_task)
            self.task_bytes = max(self.task_bytes, self._seen_bytes)
        elif self._settling > 0:
            self._settling -= 1
        else:
            self._idle_left = left
            self._first_number = self._outlook.number

    def _learn_from_end(self) -> None:
        """Learn from a task that has ended; after as many as run at once, what they took is what tasks take now."""
        self._settling = 2
        self._generation += 1
        if not self._is_known:
            self._slow_start += 1
            self._is_known = self._outlook.number - self._first_number >= SAMPLES_TO_KNOW
            self._next_look = -math.inf
        if self._generation > self.running and self._seen_bytes > 0:
            self.task_bytes += (self._seen_bytes - self.task_bytes) * FORGET
            self._seen_bytes, self._generation = 0.0, 0

    def _fitting(self, most: int) -> int:
        """Return how many tasks may run in all: to the limit while calm, to the target while pressed."""
        outlook, pressed = self._outlook, self._ask()
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
        promised = max(self.running * self.task_bytes - max(taken, 0.0), 0.0)
        return min(self.running + math.floor((room - promised) / self.task_bytes), most)
