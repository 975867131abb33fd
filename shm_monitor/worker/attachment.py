"""Follow one name across the deaths, restarts and changes of its sampler, and answer the one question.

This module and all it imports are the standard library alone: it runs in every data-loader worker.
"""

from __future__ import annotations

import time

from shm_monitor.errors import MonitorError, NotFoundError, NotReadyError, OtherMemoryError, SegmentError, StaleError
from shm_monitor.forks import importing
from shm_monitor.light import TYPE_CHECKING
from shm_monitor.segment import layout, names
from shm_monitor.segment.address import FlagAddress, flag_address, flag_word, hot_byte
from shm_monitor.segment.flags import FIRST_PRESSING, HOT_BYTE, level_number, presses, reasons_of, shed_of
from shm_monitor.segment.mapping import identity
from shm_monitor.segment.status import LIVE, beat_age_ns, may_go_on, state_of, state_of_error
from shm_monitor.segment.view import View
from shm_monitor.worker.hot_path import Questions, questions
from shm_monitor.worker.watching import MANY, OVERALL, flag_count, flag_indices, known_indices

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from shm_monitor.segment.address import HotByte
    from shm_monitor.worker.grace_period import GracePeriod
    from shm_monitor.worker.hot_path import Flags
    from shm_monitor.worker.presence import Presence

    OnStale = Literal["never", "always", "hold", "raise"]
    MemoryScope = Literal["own", "any"]

ON_STALE: tuple[OnStale, ...] = ("never", "always", "hold", "raise")

CHECK_MEMORY_SECONDS = 5.0  # how often a slow path looks whether this process is in another cgroup now: 0.1 ms
LOOK_AGAIN_SECONDS = 0.2  # how often a reader without a live sampler looks for one: one stat(2), 2 us
ATTACH_POLL_SECONDS = 0.01
# How long an answer for a dead sampler holds without a look at its segment: less than any sampler takes to start.
SETTLED_SECONDS = 0.001


class Attachment:
    """The segment that a name has now, and what to answer while it has none that lives.

    Attributes:
        name: of the sampler.
        watch: the limits asked for; None for the overall verdict.
        on_stale: what to answer while no sampler is alive.
        scope: whose memory the sampler may measure: ``own``, this process's, or ``any``.
        indices: the flags of the watched limits.
        presence: the slot of a worker that has presented itself.
        trouble: why there is no segment, while there is none.
        settled_until: how long the last decision for a dead sampler holds without another, in monotonic seconds.
    """

    def __init__(
        self, name: str, *, watch: tuple[str, ...] | None, on_stale: OnStale, scope: MemoryScope = "own"
    ) -> None:
        """Prepare; ``open`` looks for the sampler."""
        self.name = name
        self.watch = watch
        self.on_stale = on_stale
        self.scope = scope
        self.indices = self._asked = OVERALL
        self.presence: Presence | None = None
        self.trouble: SegmentError = NotFoundError(name, names.object_path(name))
        self._view: View | None = None
        self._next_look = self._next_check = 0.0
        self._warned_of: object = None
        self._grace_period: GracePeriod | None = None
        self._closed = False
        self._room = 0
        self._bind: Callable[[Flags, HotByte | None], None] = _nothing
        self.settled_until = 0.0

    def questions(self) -> Questions:
        """Return the questions, bound to the flags of the segment that the name has, now and later. Once.

        They keep this attachment, which keeps none of them: a dropped reader is freed at once, without the collector.
        """
        count = flag_count(self.watch) if self._view is None else min(len(self.indices), MANY)
        if self.presence is not None:
            count = min(count + 1, MANY)
        self._room = count if count < MANY else layout.FLAG_COUNT
        made = questions(count, self, of_worker=self.presence is not None)
        self._bind = made.bind
        self._bind_to(self._view)
        return made

    def open(self, *, timeout: float, required: bool) -> None:
        """Look for the sampler until it is there, or raise when *required* and it is not in *timeout* seconds."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self._use(View(self.name), strict=required)
            except (NotFoundError, NotReadyError) as error:
                self.trouble = error if required else _without_frames(error)
                if time.monotonic() >= deadline:
                    if required:
                        raise
                    return None
            except SegmentError as error:
                self.trouble = error
                if required:
                    raise
                return None
            time.sleep(ATTACH_POLL_SECONDS)

    def view(self) -> View:
        """Return the segment as it is now, after looking again where the old one is gone.

        Raises:
            SegmentError: there is none; says why.
        """
        return self.look()[0]

    def look(self) -> tuple[View, bool]:
        """Return the same, and whether a live sampler stands behind it.

        Raises:
            SegmentError: there is none; says why.
        """
        self._check_memory_again()
        live = self.live_words() is not None
        view = self._view
        if view is None:
            with importing:
                from copy import copy

            raise copy(self.trouble)  # the one that is kept would grow, and keep the frames of all who were ever told
        return view, live

    def _check_memory_again(self) -> None:
        """Let go of a sampler of other memory, where this process was moved or forked into another cgroup."""
        view, now = self._view, time.monotonic()
        if view is None or self.scope == "any" or now < self._next_check:
            return
        self._next_check = now + CHECK_MEMORY_SECONDS
        try:
            view.check_memory()
        except OtherMemoryError as error:
            self.trouble = _without_frames(error)
            self._bind_to(None)
            self._view = None

    @property
    def state(self) -> str:
        """What the sampler is now, by the words of ``shm_monitor.status``."""
        return state_of_error(self.trouble) if self._view is None else state_of(self._view)

    @property
    def is_closed(self) -> bool:
        """True once the reader has let go."""
        return self._closed

    def level(self) -> int:
        """Return the watched limits' highest level as a number; without a live sampler, what *on_stale* stands for."""
        words = self.live_words()
        return self.stale_level() if words is None else max(map(level_number, words))

    def shed_fraction(self) -> float:
        """Return the highest shed fraction of the watched limits; while none is alive, what *on_stale* stands for."""
        words = self.live_words()
        if words is None and (self.on_stale != "hold" or self._view is None):
            return float(self.stale_level() >= FIRST_PRESSING)
        view = self._view
        if words is None and view is not None:
            words = [view.flag(index) for index in self._asked]
        return max(map(shed_of, words or [0]))

    def reason_bits(self) -> int:
        """Return the reasons of the watched limits; none while no sampler is alive."""
        bits = 0
        for word in self.live_words() or []:
            bits |= reasons_of(word)
        return bits

    def flags(self) -> list[tuple[FlagAddress, int]]:
        """Return address and word of each watched flag; an address keeps its segment mapped, nothing else does.

        Raises:
            SegmentError: there is no segment.
        """
        view = self.view()
        return [(flag_address(view.memory, _flag_offset(index)), view.flag(index)) for index in self._asked]

    def hot_address(self) -> FlagAddress:
        """Return the address of the first watched hot byte, which keeps its segment mapped.

        Raises:
            SegmentError: there is no segment.
        """
        return flag_address(self.view().memory, _flag_offset(self._asked[0]) + HOT_BYTE)

    def close(self) -> None:
        """Let go; the mapping goes with its last user. The reader then answers as if its sampler were gone.

        Not unmapped by force: another thread may be between two flags, and would read where nothing is.
        """
        self._closed = True
        self._bind_to(None)
        if self.presence is not None:
            self.presence.end()
        self._view = None
        self.trouble = NotFoundError(self.name, "(closed reader)")

    def decide(self) -> bool:
        """Slow path: decide when the flag byte alone is not enough, as without a live sampler."""
        self.settled_until = 0.0
        words = self.live_words()
        if words is not None:
            return any(map(presses, words))
        answer = self.stale_level() >= FIRST_PRESSING
        if self._view is None or not may_go_on(self._view):
            self.settled_until = min(self._next_look, time.monotonic() + SETTLED_SECONDS)
        return answer

    def live_words(self) -> list[int] | None:
        """Return the watched flags of a live sampler, looking for a new one where the old is gone; else None."""
        for _ in range(2):
            view = self._view
            if view is not None and state_of(view) == LIVE:
                self._warned_of = None
                if self._awaits(view):
                    self.rebind()
                return [view.flag(index) for index in self._asked]
            if not self._found_another(view):
                return None
        return None

    def _found_another(self, old: View | None) -> bool:
        """Look whether the name has a segment other than *old*, five times a second at most; if so, use it."""
        now = time.monotonic()
        if self._closed or now < self._next_look:
            return False
        self._next_look = now + LOOK_AGAIN_SECONDS
        if old is not None and identity(self.name) in {old.identity, None}:
            return False
        try:
            self._use(View(self.name), strict=False)
        except SegmentError as error:
            self.trouble = _without_frames(error)
            return False
        return True

    def _use(self, view: View, *, strict: bool) -> None:
        """Make *view* the one to answer from; the old one goes when nobody holds its bytes."""
        if self.scope == "own":
            view.check_memory()
            self._next_check = time.monotonic() + CHECK_MEMORY_SECONDS
        if self.watch is None:
            indices = OVERALL
        else:
            indices = (flag_indices if strict else known_indices)(self.watch, view.schema)
        self.indices = indices
        self._view = view
        self._next_look = 0.0
        self.rebind()

    def present(self, weight: float) -> None:
        """Have this process seen; the questions must be made anew.

        Raises:
            MonitorError: the file of the workers cannot be made or trusted.
        """
        with importing:
            from shm_monitor.worker.presence import Presence  # which only a worker that presents itself pays

        if self.presence is None:
            self.presence = Presence(self.name, weight, self.rebind)
            self.rebind()

    def rebind(self) -> None:
        """Ask the flags that are to be asked now."""
        view = self._view
        if view is not None:
            self._asked = self.indices if self.presence is None else self.presence.flags(view, self.indices)
            self._bind_to(view)

    def _bind_to(self, view: View | None) -> None:
        """Ask the watched flags of *view*, where they alone tell, and the overall one first where it holds for all."""
        if view is None:
            self._bind([], None)
            return
        overall = None
        if max(self._asked) < layout.FIRST_WORKER_FLAG:
            overall = hot_byte(view.memory, _flag_offset(0) + HOT_BYTE)
        flags = self._flags_of(view)
        self._bind(flags, overall if flags else None)

    def _awaits(self, view: View) -> bool:
        """Say whether the sampler has seen this worker since the flags were bound."""
        return self.presence is not None and self._asked == self.indices and self.presence.is_seen(view)

    def _flags_of(self, view: View) -> Flags:
        """Return the watched flags of *view*; none where a flag alone does not tell, or where there is no room."""
        if not view.needs_no_clock or len(self._asked) > self._room:
            return []
        if self.presence is not None and self.presence.slot is not None and not self.presence.is_seen(view):
            return []  # asked the long way until the sampler has seen it, a sample from now
        offsets = map(_flag_offset, self._asked)
        return [(hot_byte(view.memory, offset + HOT_BYTE), flag_word(view.memory, offset)) for offset in offsets]

    def stale_level(self) -> int:
        """Return the number of the level that *on_stale* stands for; warn once per death."""
        if self.on_stale == "raise":
            raise StaleError(self.name, self.state, self._age_or_zero())
        self._warn_once()
        if self.on_stale == "always":
            return FIRST_PRESSING
        if self._view is not None and (self.on_stale == "hold" or self._is_in_grace_period(self._view)):
            return max(level_number(self._view.flag(index)) for index in self._asked)
        return 0

    def _is_in_grace_period(self, view: View) -> bool:
        """Say whether the last verdict goes on for now, because memory was short when the sampler died."""
        if self._grace_period is None:
            try:
                with importing:
                    from shm_monitor.worker.grace_period import (
                        GracePeriod,  # which only a worker without a sampler pays
                    )
            except OSError:  # no descriptor left to read it by
                return False
            self._grace_period = GracePeriod()
        return self._grace_period.lasts(view)

    def _age_or_zero(self) -> float:
        try:
            return 0.0 if self._view is None else beat_age_ns(self._view) / 1e9
        except MonitorError:
            return 0.0

    def _warn_once(self) -> None:
        """Log one warning per death, not per question."""
        view = self._view
        # Not the epoch: a sampler that starts stores its own before its first sample, in the middle of the same death.
        death = "absent" if view is None else (view.identity, view.word(layout.INCARNATION_OFFSET))
        state = self.state
        if self._warned_of == death or self._closed or state == LIVE:  # it has come back since we looked
            return
        try:
            with importing:
                import logging  # 5 ms that only a worker without a sampler pays
        except OSError:  # no descriptor left to read it by: the answer matters more; said once there is one
            return
        self._warned_of = death
        if view is None and isinstance(self.trouble, OtherMemoryError):
            logging.getLogger("shm_monitor").warning("answers as without a sampler: %s", self.trouble)
            return
        logging.getLogger("shm_monitor").warning(
            "the sampler %r is %s: should_prune() answers by on_stale=%r until one is back; "
            "try: shm-monitor status --name %s",
            self.name,
            state,
            self.on_stale,
            self.name,
        )


def _flag_offset(index: int) -> int:
    return layout.FLAGS_OFFSET + index * layout.FLAG_STRIDE


def _nothing(*_: object) -> None:
    """Stand in for what binds the questions until there are any."""


def _without_frames(error: SegmentError) -> SegmentError:
    """Return *error* to be kept: a traceback would keep all that is in the frames of who asked, such as a batch."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
