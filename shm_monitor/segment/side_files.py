"""The files beside a segment (lock, injections, workers): one private directory of the user, and how they are opened.

The directory is ``/dev/shm/shm-monitor.UID``: mode 0700, made by the first who needs it, and never removed, so that
nobody else can take its place. Not ``$XDG_RUNTIME_DIR`` and not ``/run/user/UID``, though they are where such files
belong by custom: two processes of one user must never see two locks for one segment, and they would

* where only one has the variable: cron, sudo, ``docker exec`` and most services have none;
* where one started before the login and one after it, for the directory comes with the first session;
* in containers that share /dev/shm and not /run;
* after a logout, which removes the directory under a sampler that lives on (pam_systemd(8)), and its lock with it.

What lies in the file system of the segment is seen by exactly those who see the segment, and goes when it goes.

Source of the checks: OpenJDK, perfMemory_posix.cpp (a real directory, our own, that nobody else can write; files that
are regular, our own and have one link), which keeps its files in /tmp for the same reasons.
"""

from __future__ import annotations

import errno
import os
import stat

from shm_monitor.errors import MonitorError, NoSpaceError, SamplerError, UntrustedError
from shm_monitor.light import NamedTuple
from shm_monitor.segment import names
from shm_monitor.segment.mapping import taken

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
# O_NONBLOCK: opening a FIFO that lies there would wait for ever.
_SAFELY = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_TRIES = 8  # each lost to somebody who removed the directory between two of our calls


class Found(NamedTuple):
    """What lies where this user's samplers have their files.

    Args:
        names: of samplers that have a segment or a side file, sorted.
        foreign: entries that bear this user's number and belong to somebody else.
        malformed: entries that bear it and are nothing that a sampler makes.
    """

    names: list[str]
    foreign: int
    malformed: int


def open_file(name: str, suffix: str, flags: int) -> int:
    """Open a side file of the sampler *name*; return the descriptor of a regular file that only this user can write.

    With ``O_CREAT`` the directory is made as well; the file has mode 0600. 10 us, of which an open(2) is 1.

    Raises:
        FileNotFoundError: it does not exist, and ``O_CREAT`` was not given.
        FileExistsError: it exists, and ``O_EXCL`` was given.
        UntrustedError: it or the directory has a foreign owner, is a link, lets others write, or is no such thing.
        NoSpaceError: shared memory is full.
        SamplerError: the system refuses, such as for too many open files.
    """
    path = names.side_path(name, suffix)
    for _ in range(_TRIES):
        try:
            place = _open_directory(name, make=bool(flags & os.O_CREAT))
            try:
                fd = os.open(os.path.basename(path), flags | _SAFELY, 0o600, dir_fd=place)
            finally:
                os.close(place)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
            continue
        except FileExistsError:
            raise
        except OSError as error:
            raise refusal(name, path, error) from error
        return _checked(name, path, fd)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def replace(name: str, suffix: str, data: bytes) -> None:
    """Put *data* in the place of a side file: a process that reads it meanwhile gets the old one or the new one.

    Raises:
        OSError: it cannot be written, such as for a full /dev/shm; the old one stays.
        MonitorError: as for ``open_file``.
    """
    new = names.side_path(name, f"{suffix}-new")
    fd = open_file(name, f"{suffix}-new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        with open(fd, "wb") as file:
            file.write(data)
        os.rename(new, names.side_path(name, suffix))
    except OSError:
        os.unlink(new)  # half of a file takes room that is short
        raise


def refusal(name: str, path: str, error: OSError) -> MonitorError:
    """Return what it means to the user of *name* that the system refused to open or make *path*."""
    reason = os.strerror(error.errno or 0)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:  # out of inodes, too
        free = os.statvfs(os.path.dirname(names.side_directory()))
        return NoSpaceError(path, 1, free.f_bavail * free.f_frsize if free.f_favail else 0)
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return SamplerError(f"{path} cannot be opened: {reason}; try: ulimit -n 1024")
    if error.errno == errno.EROFS:
        return SamplerError(f"{path} cannot be made: {reason}; a sampler needs to write there, readers do not")
    return taken(name, path, f"it cannot be opened ({reason})")


def scan() -> Found:
    """Return the samplers of this user, and how many entries are none of theirs.

    Raises:
        MonitorError: this system has no place for shared memory.
    """
    found: set[str] = set()
    foreign = malformed = 0
    for entry, rest in _entries():
        name, tilde, suffix = rest.partition("~")
        if not names.is_valid(name) or (tilde and not suffix):
            malformed += 1
        elif _owner(entry) not in {os.getuid(), 0}:
            foreign += 1
        else:
            found.add(name)
    return Found(sorted(found), foreign, malformed)


def files_of(name: str) -> list[os.DirEntry[str]]:
    """Return all that the sampler *name* has: segments first, then side files."""
    return [entry for entry, rest in _entries() if rest.partition("~")[0] == name]


def _entries() -> list[tuple[os.DirEntry[str], str]]:
    """Return what bears this user's number, each with what follows it: a name, or a name with a suffix.

    A directory of side files that is not to be trusted stands for itself: nothing in it is looked at.
    """
    start = names.object_name("")
    directory = names.side_directory()
    try:
        with os.scandir(os.path.dirname(directory)) as listing:
            around = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        raise MonitorError(
            f"{os.path.dirname(directory)}: {os.strerror(error.errno or 0)}; try: shm-monitor doctor"
        ) from error
    found = [(entry, entry.name.removeprefix(start)) for entry in around if entry.name.startswith(start)]
    try:
        os.close(_open_directory("", make=False))
    except FileNotFoundError:
        return found
    except MonitorError:
        return found + [(entry, "x") for entry in around if entry.path == directory]
    with os.scandir(directory) as listing:
        beside = [(entry, entry.name) for entry in listing if names.RESERVATIONS_SUFFIX not in entry.name]
    return found + sorted(beside, key=lambda one: one[1])


def _open_directory(name: str, *, make: bool) -> int:
    path = names.side_directory()
    if make:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        except FileNotFoundError as error:
            raise SamplerError(
                f"{os.path.dirname(path)} does not exist, and shared memory lives there; "
                "mount a tmpfs there, mode 1777; try: shm-monitor doctor"
            ) from error
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise refusal(name, path, error) from error
    found = os.fstat(fd)
    wrong = _flaw(found)
    if wrong:
        os.close(fd)
        raise UntrustedError(name, path, wrong, owner_uid=found.st_uid)
    return fd


def _checked(name: str, path: str, fd: int) -> int:
    found = os.fstat(fd)
    wrong = _flaw(found)
    if not stat.S_ISREG(found.st_mode):
        wrong = "it is not a regular file"
    elif found.st_nlink > 1:
        wrong = f"it has {found.st_nlink} hard links, allowed is 1"
    if wrong:
        os.close(fd)
        raise UntrustedError(name, path, wrong, owner_uid=found.st_uid)
    return fd


def _flaw(found: os.stat_result) -> str:
    """Return why what has this status is not only this user's to write, or nothing."""
    if found.st_uid != os.getuid():
        return f"owner {found.st_uid} is not this user ({os.getuid()})"
    if found.st_mode & _OTHERS_WRITE:
        return f"mode {stat.S_IMODE(found.st_mode):04o} lets others write, allowed are 0700 and 0600"
    return ""


def _owner(entry: os.DirEntry[str]) -> int | None:
    try:
        return entry.stat(follow_symlinks=False).st_uid
    except OSError:  # gone since we listed it
        return os.getuid()
