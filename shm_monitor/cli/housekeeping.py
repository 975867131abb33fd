"""Verbs that look at all samplers of this user, and at this machine."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from shm_monitor import exits
from shm_monitor.cli.look import as_json
from shm_monitor.segment import names, side_files
from shm_monitor.worker.attaching import attach

if TYPE_CHECKING:
    import argparse

    from shm_monitor.segment.status import Status


def list_all(given: argparse.Namespace) -> int:
    """Print each sampler of this user, one a line: name, state, pid, age of its last turn."""
    found = side_files.scan()
    states = [_status_of(name) for name in found.names if not _has_only_a_log(name)]
    tell_skipped(found)
    if given.json:
        print(json.dumps([as_json(one) for one in states]))
        return exits.FINE
    for one in states:
        age = "-" if one.age_seconds is None else f"{one.age_seconds:.1f} s"
        pid = "-" if one.pid is None else str(one.pid)
        print(f"{one.name:24}  {one.state:12}  {pid:>8}  {age:>10}")
    return exits.FINE


def tell_skipped(found: side_files.Found) -> None:
    """Say how much was not looked at, and why."""
    if found.foreign or found.malformed:
        print(
            f"skipped beside {names.object_path('*')}: {found.foreign} of other users, "
            f"{found.malformed} that no sampler makes",
            file=sys.stderr,
        )


def doctor(given: argparse.Namespace) -> int:
    """Say what can be measured here, and why not the rest; text fit for a bug report."""
    from shm_monitor.doctor.report import examine, is_usable, render

    # OpenBLAS, which numpy loads, ends a process that may start no thread by SIGINT.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    checks = examine()
    print(json.dumps([one._asdict() for one in checks], indent=2) if given.json else render(checks))
    return exits.FINE if is_usable(checks) else exits.PRUNE


def _has_only_a_log(name: str) -> bool:
    """Say that nothing is left of a sampler but what it wrote of its episodes: ``shm-monitor episodes`` shows it."""
    return [file.path for file in side_files.files_of(name)] == [names.side_path(name, names.EPISODES_SUFFIX)]


def _status_of(name: str) -> Status:
    with attach(name, timeout=0.0, required=False, scope="any") as reader:
        return reader.status()
