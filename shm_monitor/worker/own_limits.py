"""What the kernel lets this process alone take: its address space (``ulimit -v``) and its data (``ulimit -d``)."""

from __future__ import annotations

import os
import resource

from shm_monitor.light import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_STATM = "/proc/self/statm"  # total, resident, shared, text, 0, data and stack; in pages: proc_pid_statm(5)


class OwnLimit(NamedTuple):
    """One limit of this process.

    Args:
        name: ``RLIMIT_AS`` or ``RLIMIT_DATA``, as getrlimit(2) has it.
        limit_bytes: the soft limit; an allocation beyond it fails with ENOMEM.
        left_bytes: what is left of it.
    """

    name: str
    limit_bytes: int
    left_bytes: int


def own_limits() -> Iterator[OwnLimit]:
    """Yield each limit that is set; none where the kernel does not say what is used. 1 us where none is set."""
    set_here = [(name, limit) for name in ("RLIMIT_AS", "RLIMIT_DATA") if (limit := _soft(name)) is not None]
    if not set_here:
        return
    try:
        with open(_STATM, "rb", buffering=0) as file:
            pages = list(map(int, file.read().split()))
    except OSError:
        return
    used = {"RLIMIT_AS": pages[0], "RLIMIT_DATA": pages[5]}
    for name, limit in set_here:
        yield OwnLimit(name, limit, max(limit - used[name] * os.sysconf("SC_PAGE_SIZE"), 0))


def _soft(name: str) -> int | None:
    limit = resource.getrlimit(getattr(resource, name))[0]
    return None if limit == resource.RLIM_INFINITY else limit
