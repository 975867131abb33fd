"""``shm-monitor``, which notes at its end how each process ended that it started.

usage: python -m tests.support.ended_children FILE ARGUMENT ...
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

from shm_monitor.cli import main


class Noted(subprocess.Popen[bytes]):
    """A process that is in :attr:`every`."""

    every: list[Noted] = []  # noqa: RUF012 - one list for all

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.every.append(self)

    def named_status(self) -> tuple[str, int | None]:
        """Return its module, or else its program, and how it ended."""
        words = [*map(str, self.args)]  # type: ignore[arg-type]
        return words[words.index("-m") + 1] if "-m" in words else words[0], self.returncode


if __name__ == "__main__":
    with contextlib.suppress(OSError):  # no terminal
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    subprocess.Popen = Noted  # type: ignore[assignment, misc]
    try:
        sys.exit(main(sys.argv[2:]))
    finally:
        Path(sys.argv[1]).write_text(json.dumps([one.named_status() for one in Noted.every]))
