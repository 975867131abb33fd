"""When a task may begin: pure steps over what the ledger and the kernel say."""

from __future__ import annotations

from shm_monitor.light import NamedTuple

MB = 1 << 20
SETTLE_SECONDS = 0.05  # unknown tasks this old let as many more in: 1, 2, 4, 8 in 0.15 s where memory is plentiful
QUIET_SECONDS, QUIET_SHARE = 0.2, 0.1  # without growth for so long, and for this share of its age, a task is flat
WINDOW = 100  # ended tasks after which the largest growth is forgotten, at the latest after two windows
FREE, WAITS, RUNS = 0, 1, 2


class Slot(NamedTuple):
    """A task that waits or runs."""

    state: int = FREE
    pid: int = 0
    kind: int = 0
    ticket: int = 0
    base_bytes: int = 0  # anonymous memory of its process before the first task
    expected_bytes: int = 0  # growth that was expected when it was admitted
    seen_bytes: int = 0  # growth that others have seen
    most: int = 0  # tasks at once in its process: what they leave behind is not the last one's
    grew_at: float = 0.0
    began_at: float = 0.0
    asked_at: float = 0.0


class Kind(NamedTuple):
    """What tasks of one kind took."""

    number: int = 0
    before_bytes: int = 0  # largest growth of the window before
    now_bytes: int = 0  # and of this window
    surprise: float = 0.1  # by what share tasks went over what was expected
    ended: int = 0


class Holders(NamedTuple):
    """What the running tasks still take, and how those of the asker's kind do."""

    owed_bytes: int = 0
    live_bytes: int = 0  # the largest growth of a running task of the asker's kind
    same: tuple[int, ...] = ()  # growth of each of them
    fresh: int = 0  # how many of them have not settled
    growing: bool = False
    surprised: bool = False  # one grows beyond what was expected of it


def forecast(kind: Kind) -> int:
    """Return the growth to expect; 0 for a kind of which none has ended."""
    largest = max(kind.before_bytes, kind.now_bytes)
    return max(int(largest * (1 + kind.surprise)), 1) if kind.ended else 0


def learned(kind: Kind, expected_bytes: int, grew_bytes: int) -> Kind:
    """Return *kind* after one more task: two windows keep the one large among many small."""
    surprise = max(kind.surprise * 0.95, 0.05)
    if expected_bytes and grew_bytes > expected_bytes + 4 * MB:
        surprise = max(surprise, min(grew_bytes / expected_bytes - 1, 1.0))
    largest = max(kind.now_bytes, grew_bytes)
    ends = kind.ended % WINDOW == WINDOW - 1
    before, now = (largest, 0) if ends else (kind.before_bytes, largest)
    return Kind(kind.number, before, now, surprise, kind.ended + 1)


def grows(slot: Slot, now: float) -> bool:
    """Return whether the task is not flat yet."""
    return now - slot.grew_at < max(QUIET_SECONDS, QUIET_SHARE * (now - slot.began_at))


def will_take(each_bytes: int, expected_bytes: int, *, is_growing: bool) -> int:
    """Return what a running task has at its end: what was expected, and half as much again where it grows beyond."""
    if each_bytes <= expected_bytes:
        return expected_bytes
    return each_bytes * 3 // 2 if is_growing else each_bytes


def fits(question: Kind, told_bytes: int, holders: Holders, *, kept_bytes: int, ahead_bytes: int) -> int | None:
    """Return how many bytes must be free for one more task of the kind *question*; None where it must not begin.

    Args:
        question: the kind that asks.
        told_bytes: the size that its caller gave; 0 for none.
        holders: what runs.
        kept_bytes: what the asker's process keeps of earlier tasks, and will use again.
        ahead_bytes: what older tickets take.
    """
    expected, owed = max(forecast(question), told_bytes), holders.owed_bytes + ahead_bytes
    need = max(expected, holders.live_bytes)
    if not expected or holders.surprised:  # never seen to its end, or beyond all seen
        if 2 * holders.fresh >= max(len(holders.same), 1):
            return None
        live = holders.live_bytes
        need = max(16 * live, 256 * MB) if holders.growing else max(2 * live, 64 * MB)
        owed += sum(max(need - each, 0) for each in holders.same)
    return owed + max(need - kept_bytes, 0)
