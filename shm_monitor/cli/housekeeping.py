"""Verbs that look at all samplers of this user, and at this machine."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from shm_monitor import exits
from shm_monitor.cli.look import as_json
from shm_monitor.errors import AlreadyRunningError, UntrustedError
from shm_monitor.segment import names, side_files
from shm_monitor.segment.lock import Lock, holder_of
from shm_monitor.worker.reader import attach

if TYPE_CHECKING:
    import argparse

    from shm_monitor.segment.status import Status


def list_all(given: argparse.Namespace) -> int:
    """Print each sampler of this user, one a line: name, state, pid, age of its last turn."""
    found = [_status_of(name) for name in side_files.scan().names]
    if given.json:
        print(json.dumps([as_json(one) for one in found]))
        return exits.FINE
    for one in found:
        age = "-" if one.age_seconds is None else f"{one.age_seconds:.1f} s"
        pid = "-" if one.pid is None else str(one.pid)
        print(f"{one.name:24}  {one.state:12}  {pid:>8}  {age:>10}")
    return exits.FINE


def clean(given: argparse.Namespace) -> int:  # noqa: ARG001 - every verb takes the arguments
    """Remove the files of samplers that are no more; what a live one owns stays."""
    for name in side_files.scan().names:
        if remove(name):
            print(f"removed {name}")
    return exits.FINE


def remove(name: str) -> bool:
    """Remove the files of *name* unless a live sampler holds its lock; return whether they are gone."""
    from shm_monitor.sampler.ownership import unlink_object

    if holder_of(name) is not None:
        return False
    try:
        lock = Lock(name)  # held while removing, so that no sampler starts in between
    except (AlreadyRunningError, UntrustedError):
        return False
    try:
        unlink_object(names.object_name(name))
        for file in side_files.files_of(name):
            if file.path != lock.path:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(file.path)
    finally:
        lock.release()
    return True


def doctor(given: argparse.Namespace) -> int:
    """Say what can be measured here, and why not the rest; text fit for a bug report."""
    from shm_monitor.doctor.report import examine, is_usable, render

    checks = examine()
    print(json.dumps([one._asdict() for one in checks], indent=2) if given.json else render(checks))
    return exits.FINE if is_usable(checks) else exits.PRUNE


def _status_of(name: str) -> Status:
    with attach(name, timeout=0.0, required=False) as reader:
        return reader.status()
