"""Programs that have a ResourceManager each, and say how long it was without a sampler.

``python -m tests.support.manager_process NAME COUNT`` forks *COUNT* of them from one interpreter that has loaded
everything, for 30 imports take seconds. Each writes one line when it is ready, its pid; the pipe to its standard input
is one for all: at its end each closes its manager and writes its pid and its longest gap in seconds.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.support.children import PYTHON
from tests.support.real_sampler import fast
from tests.support.surroundings import child_environment

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

ASK_SECONDS = 0.01
WAIT_SECONDS = 60.0


class Managers:
    """*count* programs with a manager of *name* each."""

    def __init__(self, name: str, count: int) -> None:
        """Start them; ``pids`` when all are ready."""
        self._process = subprocess.Popen(
            [*PYTHON, "-m", "tests.support.manager_process", name, str(count)],
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.pids = {int(self._line()[1]) for _ in range(count)}

    def gaps(self) -> list[float]:
        """End those that live; return the longest gap of each, in seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        return [float(line.split()[2]) for line in self._process.stdout.read().decode().splitlines()]

    def kill(self, pid: int) -> None:
        """SIGKILL one of them."""
        os.kill(pid, 9)
        self.pids.discard(pid)

    def _line(self) -> list[str]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], WAIT_SECONDS)
        assert ready, "a manager said nothing"
        return self._process.stdout.readline().decode().split()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid in self.pids if kind is not None else ():
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(WAIT_SECONDS)


def main() -> None:
    """Fork the programs, and wait for all of them."""
    from shm_monitor.manager import ResourceManager

    name, count = sys.argv[1], int(sys.argv[2])
    for _ in range(count):
        if os.fork() == 0:
            try:
                _manage(ResourceManager(fast(name, on_stale="always", stale_after=5.0)))
            finally:
                os._exit(0)
    for _ in range(count):
        os.wait()


def _manage(manager: object) -> None:
    from shm_monitor.manager import ResourceManager

    assert isinstance(manager, ResourceManager)
    os.write(1, f"ready {os.getpid()}\n".encode())
    began, longest = time.monotonic(), 0.0
    while not select.select([0], [], [], ASK_SECONDS)[0]:
        # on_stale="always", and nothing presses: true is what a reader without a live sampler answers.
        if not manager.should_prune():
            began = time.monotonic()
        longest = max(longest, time.monotonic() - began)
    manager.close()
    os.write(1, f"gap {os.getpid()} {longest:.3f}\n".encode())


if __name__ == "__main__":
    main()
