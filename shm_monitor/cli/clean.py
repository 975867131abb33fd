"""``shm-monitor clean``: remove the files of samplers that are no more; everything else stays, with its reason."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from shm_monitor import exits
from shm_monitor.cli.housekeeping import tell_skipped
from shm_monitor.errors import MonitorError
from shm_monitor.segment import names, side_files
from shm_monitor.segment.lock import Lock, holder_of
from shm_monitor.segment.removal import unlink_object
from shm_monitor.segment.status import LIVE
from shm_monitor.units import duration, printable, size
from shm_monitor.worker.attaching import attach

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

LEAST_AGE_SECONDS = 60.0  # twice a supervisor's longest pause before the next sampler, which goes on with these files
LOG_KEPT_SECONDS = 86_400.0  # of the log of episodes, from its last event on: who looks in the morning finds the night


class Outcome(NamedTuple):
    """What became of the files of one name.

    Args:
        name: of the sampler.
        files: their paths; those that are removed, or would be.
        size_bytes: of them together.
        reason: why they stay; empty for what goes.
    """

    name: str
    files: tuple[str, ...]
    size_bytes: int
    reason: str = ""


def clean(given: argparse.Namespace) -> int:
    """Remove what is this user's, dead, and at least a minute old; list what was removed, say why the rest stays."""
    found = side_files.scan()
    outcomes = [cleaned(name, dry_run=given.dry_run) for name in found.names]
    if given.json:
        print(json.dumps(_as_json(outcomes, found, dry_run=given.dry_run)))
        return exits.FINE
    for one in outcomes:
        if one.reason:
            print(f"kept {one.name}: {printable(one.reason)}", file=sys.stderr)
        else:
            verb = "would remove" if given.dry_run else "removed"
            print(f"{verb} {one.name}: {len(one.files)} files, {size(one.size_bytes)}")
    tell_skipped(found)
    return exits.FINE


def cleaned(name: str, *, dry_run: bool) -> Outcome:
    """Remove the files of *name* unless there is a reason that they stay; with *dry_run* only say it."""
    try:
        return _cleaned(name, dry_run=dry_run)
    except FileNotFoundError:  # listed a moment ago
        return Outcome(name, (), 0, "somebody else is removing it, or it has just stopped by itself")


def _cleaned(name: str, *, dry_run: bool) -> Outcome:
    files = _less(side_files.files_of(name), _young_log(name))
    if not files:
        reason = f"only its log of episodes is left, which stays for a day; see: shm-monitor episodes --name {name}"
        return Outcome(name, (), 0, reason)
    outcome = Outcome(name, tuple(file.path for file in files), sum(map(_size_of, files)), _why_kept(name, files))
    if outcome.reason or dry_run:
        return outcome
    try:
        lock = Lock(name)  # held while removing, so that no sampler starts in between
        try:
            return outcome._replace(reason=_why_young(name, _less(files, lock.path)) or _removed(name, lock))
        finally:
            lock.release()
    except MonitorError as error:  # somebody was faster, or something else lies in the place of the lock
        return outcome._replace(reason=str(error))


def _why_kept(name: str, files: list[os.DirEntry[str]]) -> str:
    for file in files:
        found = file.stat(follow_symlinks=False)
        if found.st_uid != os.getuid():
            return f"{file.path} belongs to user {found.st_uid}"
        if not stat.S_ISREG(found.st_mode):
            return f"{file.path} is not a regular file; it is yours: remove it by hand"
    for file in files:
        _, tilde, suffix = file.name.partition("~")
        holder = holder_of(name, tilde + suffix) if os.path.dirname(file.path) == names.side_directory() else None
        if holder is not None:  # of the lock file the sampler; of the workers' file a worker that awaits the next one
            return f"process {holder or 'of another pid namespace'} holds {file.path}"
    return _why_young(name, files)


def _why_young(name: str, files: Iterable[os.DirEntry[str]]) -> str:
    """Say that a sampler turns, lock or no lock, or that it did, or began to, less than a minute ago."""
    with attach(name, timeout=0.0, required=False, scope="any") as reader:
        status = reader.status()
    if status.state == LIVE:
        return f"its sampler lives (process {status.pid}), though nobody holds its lock"
    # The turns on the monotonic clock: nothing that is written into the mapping changes the time of the file.
    ages = [time.time() - file.stat(follow_symlinks=False).st_mtime for file in files]
    age = min([*ages, *([] if status.age_seconds is None else [status.age_seconds])], default=LEAST_AGE_SECONDS)
    if age >= LEAST_AGE_SECONDS:
        return ""
    return f"dead for {duration(max(age, 0.0))}, and a supervisor may start it again; try again in a minute"


def _removed(name: str, lock: Lock) -> str:
    """Remove the files of *name* but for its lock and a log of today; return why one of them could not be."""
    try:
        for suffix in ("", names.NEW_SUFFIX):
            unlink_object(names.object_name(name) + suffix)
        for file in _less(side_files.files_of(name), lock.path, _young_log(name)):
            os.unlink(file.path)
    except OSError as error:
        return f"{error.filename or names.object_path(name)}: {error.strerror}"
    return ""


def _young_log(name: str) -> str:
    """Return the path of the log of episodes of *name* while it is to be kept, else nothing."""
    path = names.side_path(name, names.EPISODES_SUFFIX)
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return ""
    is_young = stat.S_ISREG(found.st_mode) and time.time() - found.st_mtime < LOG_KEPT_SECONDS
    return path if is_young and found.st_uid == os.getuid() else ""


def _less(files: Iterable[os.DirEntry[str]], *paths: str) -> list[os.DirEntry[str]]:
    return [file for file in files if file.path not in paths]


def _size_of(file: os.DirEntry[str]) -> int:
    return file.stat(follow_symlinks=False).st_blocks * 512  # stat(2): blocks of 512 bytes, whatever the file system's


def _as_json(outcomes: list[Outcome], found: side_files.Found, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "removed": [
            {"name": one.name, "files": one.files, "size_bytes": one.size_bytes} for one in outcomes if not one.reason
        ],
        "kept": [{"name": one.name, "reason": one.reason} for one in outcomes if one.reason],
        "foreign": found.foreign,
        "malformed": found.malformed,
    }
