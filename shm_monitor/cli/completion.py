"""``shm-monitor completion``: what a shell needs to complete the command, printed."""

from __future__ import annotations

import sys
from importlib.resources import files
from typing import TYPE_CHECKING

from shm_monitor import exits

if TYPE_CHECKING:
    import argparse

SCRIPTS = {"bash": "shm-monitor.bash", "zsh": "_shm-monitor", "fish": "shm-monitor.fish"}


def completion(given: argparse.Namespace) -> int:
    """Print the script of one shell; it was made from the parser of the command (docs/site/shell.py)."""
    sys.stdout.write((files("shm_monitor.cli") / "shell" / SCRIPTS[given.shell]).read_text(encoding="utf-8"))
    return exits.FINE
