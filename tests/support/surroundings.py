"""Where a test stands: the checkout, the environment of its children, the files of its sampler."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from shm_monitor.segment import names

ROOT = Path(__file__).parents[2]
UNMEASURED = {"COVERAGE_PROCESS_CONFIG": ""}
"""For the environment of a child whose modules, files or memory are looked at: coverage brings its own."""


def child_environment(**settings: str) -> dict[str, str]:
    """Return an environment in which a child finds the same modules as this process, and these *settings*."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("SHM_MONITOR_")}
    return {**inherited, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **settings}


def files_of(name: str) -> list[str]:
    """Return the paths of all that any user's sampler *name* has: segments and side files, sorted."""
    directory = Path(names.side_directory()).parent
    return sorted(
        str(path)
        for place in (directory, *directory.glob(f"{names.PREFIX}.*/"))
        if os.access(place, os.R_OK | os.X_OK)
        for path in place.iterdir()
        if path.name.startswith(names.PREFIX if place == directory else name) and name in path.name
    )


def remove_files(name: str) -> None:
    """Remove every file of the sampler *name*."""
    for path in files_of(name):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
