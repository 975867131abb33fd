"""What it means to the user that the system refused something: which limit it was, what it is now, what to type."""

from __future__ import annotations

import errno
import os
import resource
import sys

from shm_monitor.errors import SamplerError

OPEN_FILES_WANTED = 64  # a sampler of this machine with a GPU has 25 open, and opens more while it loads

_IN_WORDS = (  # how the dynamic loader, Python and numba's loader say it, without an errno
    ("failed to map segment", errno.ENOMEM),
    ("cannot allocate memory", errno.ENOMEM),
    ("libllvmlite", errno.ENOMEM),  # installed, else numba could not have been imported so far
    ("too many open files", errno.EMFILE),
    ("can't start new thread", errno.EAGAIN),
    ("can't allocate lock", errno.ENOMEM),
)


def refusal(error: BaseException, doing: str) -> SamplerError | None:
    """Return *error* as one line about the limit that was met while *doing*; None where it was no limit."""
    number = next(filter(None, map(_number_of, _chain(error))), 0)
    if number in {errno.EMFILE, errno.ENFILE}:
        now = _now("open files", resource.RLIMIT_NOFILE, "ulimit -n")
        return SamplerError(f"{doing}: too many open files; {now}; try: ulimit -n {OPEN_FILES_WANTED}, or more")
    if number == errno.ENOMEM:
        now = _now("address space", resource.RLIMIT_AS, "ulimit -v, in KB")
        return SamplerError(f"{doing}: no memory; {now}; try: ulimit -v unlimited, or a larger limit of the container")
    if number == errno.EAGAIN:
        now = _now("processes and threads of this user", resource.RLIMIT_NPROC, "ulimit -u")
        return SamplerError(
            f"{doing}: no process or thread can be started; {now}; try: ulimit -u 4096, or a larger pids limit of the "
            "container (docker run --pids-limit)"
        )
    if number == errno.EFBIG:
        now = _now("size of a file", resource.RLIMIT_FSIZE, "ulimit -f, in KB")
        return SamplerError(f"{doing}: a file would be too large; {now}; try: ulimit -f unlimited")
    if number == errno.ENOENT and sys.platform == "linux" and not os.path.exists("/proc/self"):
        return SamplerError(f"{doing}: there is no /proc, which is what it reads; try: mount -t proc proc /proc")
    return None


def _chain(error: BaseException) -> list[BaseException]:
    """Return *error* and what it came from, the nearest first."""
    found = [error]
    while (cause := found[-1].__cause__ or found[-1].__context__) is not None and cause not in found:
        found.append(cause)
    return found


def _number_of(error: BaseException) -> int:
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    words = str(error).lower()
    in_words = next((number for text, number in _IN_WORDS if text in words), 0)
    return in_words or (error.errno or 0 if isinstance(error, OSError) else 0)


def _now(what: str, limit: int, command: str) -> str:
    soft = resource.getrlimit(limit)[0]
    if soft == resource.RLIM_INFINITY:
        return f"the limit for {what} is none of this process ({command}: unlimited)"
    return f"the limit for {what} is {soft >> 10 if 'KB' in command else soft} ({command})"
