"""A worker that can be seen: it has a flag of its own, and is asked for its part alone.

Where every worker is told of pressure at once, all of them shed at once, many times what was too much. A worker that
presents itself holds a slot; the sampler sees what it holds, and asks the largest holders first, a few at a time.
"""

from __future__ import annotations

import contextlib
import os
import weakref

from shm_monitor.errors import MonitorError
from shm_monitor.forks import importing, renew_in_child
from shm_monitor.light import TYPE_CHECKING, NamedTuple
from shm_monitor.segment import flags, layout, presence
from shm_monitor.segment.layout import FIRST_WORKER_FLAG, OTHERS_FLAG

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shm_monitor.segment.view import View
    from shm_monitor.snapshot.structs import Present

MEMORY = "memory"
_GPU_MEMORY = "gpu-memory"
_ATTEMPTS = 3


class Request(NamedTuple):
    """What a present worker is asked for.

    Args:
        round_number: which round of the sampler asked; another number is another request. Counted modulo 2**16.
        size_bytes: to give back.
        held_bytes: what the sampler saw it hold above what it had when it presented itself; of a GPU all of it.
        share: that over a fair share.
        limit: memory, or ``gpu-memory:0`` and its like: of what.
    """

    round_number: int
    size_bytes: int
    held_bytes: int
    share: float
    limit: str = MEMORY

    def __str__(self) -> str:
        """Return it as a sentence."""
        with importing:
            from shm_monitor.units import size

        held = f"it holds {size(self.held_bytes)}, {self.share:.1f} x its share"
        what = "" if self.limit == MEMORY else f" of {self.limit}"
        return f"asked to shed {size(self.size_bytes)}{what} in round {self.round_number}, because {held}"


def present_workers(name: str, view: View) -> list[Present]:
    """Return the present workers of *name* by slot; none while the sampler of *view* has seen none.

    5 us each, and 0.1 ms more for the first look at each.
    """
    if not view.flag(OTHERS_FLAG):
        return []
    with importing:
        from shm_monitor.process_names import remembered_name_of
        from shm_monitor.snapshot.structs import Present

    register = presence.Register(name)
    found = []
    for slot, pid in register.holders():
        number, size, one = _request(register, view, slot)
        found.append(
            Present(
                slot=slot,
                pid=pid,
                weight=one.weight,
                held_bytes=one.held_bytes,
                share=one.share,
                request_bytes=size,
                limit=_limit(view, one),
                round_number=number,
                answered_round=one.answered_round,
                shed_bytes=one.shed_bytes,
                in_vain_count=one.in_vain_count,
                name=remembered_name_of(pid, slot, one.base_bytes).name,
            )
        )
    return found


def _request(register: presence.Register, view: View, slot: int) -> tuple[int, int, presence.Record]:
    """Return round, bytes and record of *slot*; no bytes where the two are not of one round, for they change now."""
    for _ in range(_ATTEMPTS):
        number, size = flags.request_of(view.word(layout.REQUESTS_OFFSET + slot * layout.WORD_BYTES))
        one = register.record(slot)
        if not size or one.round_number == number:
            return number, size, one
    return number, 0, one


def _limit(view: View, record: presence.Record) -> str:
    limits = view.schema.limits
    return limits[record.limit - 1].name if 0 < record.limit <= len(limits) else MEMORY


def _wants(names: list[str], indices: tuple[int, ...]) -> int:
    """Return the bits of what a reader wants to be asked for that watches the flags *indices*."""
    if indices == (0,):
        return presence.WANTS_ALL
    gpus = [index for index, name in enumerate(names, 1) if name.partition(":")[0] == _GPU_MEMORY]
    bits = 0
    for index in indices:
        if index in gpus:
            bits |= presence.want_of(gpus.index(index))
        elif names[index - 1].partition(":")[0] == MEMORY:
            bits |= presence.want_of()
    return bits


class Presence:
    """The slot of this process under one name, for one reader; a forked child gets one of its own."""

    def __init__(self, name: str, weight: float, rebind: Callable[[], object]) -> None:
        """Take a slot; *rebind* is called in a forked child when it has its own.

        Raises:
            MonitorError: the file of the workers cannot be made or trusted.
        """
        self._name, self._weight = name, weight
        self._rebind = weakref.WeakMethod(rebind)  # a dropped reader is freed at once, and its slot with it
        self._pid = os.getpid()
        self.slot = presence.take_slot(name, weight) if presence.HAS_PRESENCE else None
        renew_in_child(self, Presence._anew)

    def flags(self, view: View, indices: tuple[int, ...]) -> tuple[int, ...]:
        """Return the flags to ask in place of *indices*: the own one for memory, the limits' for the rest.

        Those of the limits as they are, while the sampler has not seen this worker.
        """
        names = [limit.name for limit in view.schema.limits]
        asked_for = [index for index, name in enumerate(names, 1) if name.partition(":")[0] in (MEMORY, _GPU_MEMORY)]
        if self.slot is not None:
            with contextlib.suppress(OSError, MonitorError):  # a full /dev/shm: asked for all, as before
                presence.want(self._name, self.slot, _wants(names, indices))
        if not self.is_seen(view):
            return indices
        if indices == (0,):
            return (OTHERS_FLAG, self._own)
        others = tuple(index for index in indices if index not in asked_for)
        return others if len(others) == len(indices) else (*others, self._own)

    def is_seen(self, view: View) -> bool:
        """Say whether the sampler of *view* writes the flag of this worker."""
        return self.slot is not None and view.flag(self._own) != 0

    def request(self, view: View) -> Request | None:
        """Return what this worker is asked for; None for nothing."""
        if self.slot is None:
            return None
        number, size, record = _request(presence.Register(self._name), view, self.slot)
        if not size:
            return None
        return Request(number, size, record.held_bytes, record.share, _limit(view, record))

    def say(self, **what: Any) -> None:
        """Write into the own record; see ``shm_monitor.segment.presence.say``."""
        if self.slot is not None:
            with contextlib.suppress(OSError, MonitorError):  # a full /dev/shm: the sampler does without
                presence.say(self._name, self.slot, **what)

    def end(self) -> None:
        """Let go of the slot, unless this is a forked child's copy of somebody else's."""
        if self.slot is not None and self._pid == os.getpid():
            presence.give_back(self._name)
        self.slot, self._pid = None, 0

    def __del__(self) -> None:
        """Let go of the slot."""
        with contextlib.suppress(Exception):  # at the end of the interpreter
            self.end()

    @property
    def _own(self) -> int:
        return FIRST_WORKER_FLAG + (self.slot or 0)

    def _anew(self) -> None:
        """Present the forked child that this is; without a slot it is told what everybody is."""
        if not self._pid:
            return
        self._pid = os.getpid()
        try:
            self.slot = presence.take_slot(self._name, self._weight)
        except (OSError, MonitorError):
            self.slot = None
        rebind = self._rebind()
        if rebind is not None:
            rebind()
