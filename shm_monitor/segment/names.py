"""The name of a sampler, and where its files are: the segment, its lock, its injections."""

from __future__ import annotations

import os
import sys

from shm_monitor.errors import ConfigError

DEFAULT_NAME = "default"
NAME_VARIABLE = "SHM_MONITOR_NAME"
NAME_ALLOWED = "1 to 64 letters, digits, '.', '_' or '-', not starting with '.'"
PREFIX = "shm-monitor"
SHM_DIRECTORY = "/dev/shm"  # noqa: S108 - where Linux keeps POSIX shared memory, shm_overview(7)
HAS_DIRECTORY = sys.platform == "linux"  # macOS shows its shared memory nowhere
LOCK_SUFFIX = "~lock"  # a name has no "~", so no segment can be taken for a file beside another
NEW_SUFFIX = "~new"
INJECT_SUFFIX = "~inject"
EPISODES_SUFFIX = "~episodes"
CONFIG_SUFFIX = "~config"
PROCESSES_SUFFIX = "~processes"
RESERVATIONS_SUFFIX = "~reservations"  # of a memory limit, not of a sampler

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def is_valid(name: str) -> bool:
    """Say whether *name* is ``NAME_ALLOWED``, so that it can be no path and no hidden file."""
    return 1 <= len(name) <= 64 and name[0] != "." and _NAME_CHARACTERS.issuperset(name)


def resolve(name: str | None = None) -> str:
    """Return *name*, else ``SHM_MONITOR_NAME``, else ``default``: the one rule of which sampler is meant.

    The variable names the newest open ``ResourceManager`` of this process, for :func:`announce` sets it.

    Raises:
        ConfigError: the name is not ``NAME_ALLOWED``.
    """
    found = name or os.environ.get(NAME_VARIABLE) or DEFAULT_NAME
    if not is_valid(found):
        raise ConfigError("name", found, "argument" if name else f"environment, {NAME_VARIABLE}", NAME_ALLOWED)
    return found


_announced: list[str] = []  # of the managers that are open in this process, the newest last
_inherited: str | None = None  # the variable before the first of them


def announce(name: str) -> None:
    """Make *name* the default of this process and of those that it starts, whatever the environment said before.

    Without a lock: a manager may be collected, and so withdrawn, while this thread is in here.
    """
    global _inherited  # noqa: PLW0603 - the environment that it belongs to is as global
    if not _announced:
        _inherited = os.environ.get(NAME_VARIABLE)
    _announced.append(name)
    os.environ[NAME_VARIABLE] = name


def withdraw(name: str) -> None:
    """Take back one :func:`announce`: the default is the newest that remains, or what the environment said before.

    What somebody else has written into the variable meanwhile stays.
    """
    _announced.remove(name)
    if os.environ.get(NAME_VARIABLE) != name:
        return
    before = _announced[-1] if _announced else _inherited
    if before is None:
        del os.environ[NAME_VARIABLE]
    else:
        os.environ[NAME_VARIABLE] = before


def object_name(name: str, *, uid: int | None = None) -> str:
    """Return the name of the POSIX shared-memory object, what ``SharedMemory(name=...)`` takes; None: of this user."""
    return f"{PREFIX}.{os.getuid() if uid is None else uid}.{name}"


def object_path(name: str, *, uid: int | None = None) -> str:
    """Return where the object appears on Linux; elsewhere, how messages call it."""
    return f"{SHM_DIRECTORY}/{object_name(name, uid=uid)}"


def side_directory() -> str:
    """Return the directory of this user's side files; ``shm_monitor.segment.side_files`` says why there."""
    return f"{SHM_DIRECTORY if HAS_DIRECTORY else '/tmp'}/{PREFIX}.{os.getuid()}"  # noqa: S108 - checked before use


def side_path(name: str, suffix: str) -> str:
    """Return the path of a file that belongs to the segment *name*, such as its lock; open it by ``side_files``."""
    return f"{side_directory()}/{name}{suffix}"
