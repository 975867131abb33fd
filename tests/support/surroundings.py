"""Where a test stands: the checkout, the environment of its children, the files of its sampler."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from shm_monitor.segment import names

ROOT = Path(__file__).parents[2]


def child_environment(**settings: str) -> dict[str, str]:
    """Return an environment in which a child finds the same modules as this process, and these *settings*."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("SHM_MONITOR_")}
    return {**inherited, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **settings}


def remove_files(name: str) -> None:
    """Remove every file of the sampler *name*."""
    for path in (names.object_path(name), *(names.side_path(name, suffix) for suffix in ("~lock", "~new", "~inject"))):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
