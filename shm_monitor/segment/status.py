"""What state a sampler is in, for people and for the reader's slow path."""

from __future__ import annotations

import time

from shm_monitor.errors import (
    CorruptError,
    IncompatibleError,
    NotFoundError,
    NotReadyError,
    OtherMemoryError,
    SegmentError,
)
from shm_monitor.light import TYPE_CHECKING, NamedTuple
from shm_monitor.segment import layout
from shm_monitor.segment.clocks import samplers_now_ns
from shm_monitor.segment.flags import DIED

if TYPE_CHECKING:
    from shm_monitor.segment.view import View

LIVE = "live"
STARTING = "starting"
STALE = "stale"
STOPPED = "stopped"
RETIRED = "retired"
ABSENT = "absent"
INCOMPATIBLE = "incompatible"
CORRUPT = "corrupt"
UNTRUSTED = "untrusted"
OTHER_MEMORY = "other-memory"

_BY_ERROR = {
    NotFoundError: ABSENT,
    NotReadyError: STARTING,
    IncompatibleError: INCOMPATIBLE,
    CorruptError: CORRUPT,
    OtherMemoryError: OTHER_MEMORY,
}


class CollectorStatus(NamedTuple):
    """How one collector is doing.

    Args:
        last_ok_age_seconds: since its last success; None before the first.
        errors_count: failures and time-outs since the sampler started.
    """

    last_ok_age_seconds: float | None
    errors_count: int


class Status(NamedTuple):
    """The state of one sampler; numbers are None where the segment could not be read.

    Args:
        name: of the sampler.
        state: live, starting, stale (dead or hung), stopped, retired, absent, incompatible, corrupt, untrusted or
            other-memory (it measures another cgroup than this process's).
        detail: one sentence where something is wrong, else empty.
        age_seconds: since the sampling loop last turned.
        interval_seconds: between two samples.
        sequence: the number of the newest sample.
        epoch: a random value per sampler incarnation.
        pid: of the sampler, in its own pid namespace; for people.
        restarts: how often a new sampler took this segment over.
        collectors: by name.
    """

    name: str
    state: str
    detail: str = ""
    age_seconds: float | None = None
    interval_seconds: float | None = None
    sequence: int | None = None
    epoch: int | None = None
    pid: int | None = None
    restarts: int | None = None
    collectors: dict[str, CollectorStatus] = {}  # noqa: RUF012 - never written to


def state_of(view: View) -> str:
    """Return live, stale, stopped, retired or starting, from the words of *view*. 1 us.

    The kernel marks the flag of a sampler that ended. One that is frozen (``docker pause``) or starved cannot end, and
    the age of its last turn says so.
    """
    state = view.word(layout.STATE_OFFSET)
    if state == layout.RETIRED:
        return RETIRED
    if state == layout.STOPPED:
        return STOPPED
    beat = view.word(layout.BEAT_OFFSET)
    if view.flag(0) & DIED or beat == layout.NO_BEAT:
        return STALE
    if _is_late(view, beat):
        return STALE
    return LIVE if state == layout.LIVE else STARTING


def may_go_on(view: View) -> bool:
    """Say whether the sampler of a stale *view* may turn again: nothing has marked its end."""
    return not view.flag(0) & DIED and view.word(layout.STATE_OFFSET) in {layout.LIVE, layout.STARTING}


def _is_late(view: View, beat: int) -> bool:
    """Say whether the last turn is too long ago; another look where it only seems so from another time namespace.

    Where the kernel ends a hung sampler, one that it has not ended is late only by every clock that may be its own.
    """
    limit = view.word(layout.STALE_AFTER_OFFSET)
    if time.monotonic_ns() - beat <= limit:
        return False
    return samplers_now_ns(view, alive=view.needs_no_clock) - beat > limit


def state_of_error(error: SegmentError) -> str:
    """Return the state that *error* of an attach stands for."""
    return _BY_ERROR.get(type(error), UNTRUSTED)


def beat_age_ns(view: View) -> int:
    """Return how long ago the sampling loop last turned; 0 for a beat from the future.

    After a clean stop the beat is gone, and the newest sample's time stands in for it.
    """
    beat = view.word(layout.BEAT_OFFSET)
    if beat == layout.NO_BEAT:
        beat = view.sample().mono_ns
    return max(samplers_now_ns(view, alive=state_of(view) == LIVE) - beat, 0)


def status_of(view: View) -> Status:
    """Return everything that *view* says of its sampler."""
    state = state_of(view)
    now = samplers_now_ns(view, alive=state == LIVE)
    collectors = {}
    for index, name in enumerate(view.schema.collectors):
        last_ok, errors = view.collector(index)
        collectors[name] = CollectorStatus(max(now - last_ok, 0) / 1e9 if last_ok else None, errors)
    return Status(
        name=view.name,
        state=state,
        detail="; ".join(filter(None, (_detail(now), _other_memory(view)))),
        age_seconds=beat_age_ns(view) / 1e9,
        interval_seconds=view.word(layout.INTERVAL_OFFSET) / 1e9,
        sequence=view.word(layout.HEAD_OFFSET),
        epoch=view.word(layout.EPOCH_OFFSET),
        pid=view.word(layout.PID_OFFSET),
        restarts=max(view.word(layout.INCARNATION_OFFSET) - 1, 0),
        collectors=collectors,
    )


def _other_memory(view: View) -> str:
    """Say that the sampler measures other memory than this process's; an empty string where it measures this."""
    try:
        view.check_memory()
    except OtherMemoryError as error:
        return str(error)
    return ""


def _detail(now_ns: int) -> str:
    """Say that *now_ns*, by the clock of the sampler, is far from what the clock of this process says."""
    ahead = round((time.monotonic_ns() - now_ns) / 1e9)
    if not ahead:
        return ""
    way = "ahead of" if ahead > 0 else "behind"
    return (
        f"the monotonic clock of this process is {abs(ahead)} s {way} that of the sampler: another time namespace; "
        "ages are told by the wall clock"
    )
