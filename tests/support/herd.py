"""Workers that present themselves, each a process, as a test holds them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tests.support.surroundings import child_environment


class Worker:
    """One process of tests.support.present_worker, started by the command *within*.

    Attributes:
        slot: its own, or -1.
    """

    def __init__(self, name: str, megabytes: int, *watch: str, within: Sequence[str] = ()) -> None:
        program = [sys.executable, "-m", "tests.support.present_worker", name, str(megabytes), *watch]
        command = [*within, *program]
        self.process = subprocess.Popen(
            command, env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.slot = int(self._line())

    @property
    def pid(self) -> int:
        """Of the process, unless a command started it."""
        return self.process.pid

    def do(self, line: str) -> str:
        """Have it do *line*; return what it answers."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._line()

    def ask(self) -> Any:
        """Return what it is asked."""
        return json.loads(self.do("ask"))

    def kill(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()
