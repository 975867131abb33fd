"""Real sampler processes that a test owns, without the pauses of a supervisor."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
from typing import TYPE_CHECKING

import msgspec

from shm_monitor.config.resource import ResourceConfig
from shm_monitor.supervision.handshake import Order, Report, decode_report, send_order
from tests.support.children import PYTHON
from tests.support.surroundings import child_environment

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

START_SECONDS = 60.0


def fast(name: str, **settings: object) -> ResourceConfig:
    """Return a configuration that samples at 20 Hz, interpreted: no test but those of it waits for a compiler."""
    given: dict[str, object] = {
        "check_interval": 0.05,
        "observation_period": 1.0,
        "history_seconds": 10.0,
        "stale_after": 30.0,  # a machine that is busy for seconds makes no hang
        "compile": "never",
    }
    return ResourceConfig(name=name, **{**given, **settings})  # type: ignore[arg-type]


class RealSampler:
    """``python -m shm_monitor.sampler``, owned by this process."""

    def __init__(self, config: ResourceConfig, *, collectors: tuple[str, ...] = (), force_clock: bool = False) -> None:
        """Start it and give it its order."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe would fill; closed by close()
        self.process = subprocess.Popen(
            [*PYTHON, "-m", "shm_monitor.sampler"],
            env=child_environment(OPENBLAS_NUM_THREADS="1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
        )
        assert self.process.stdin is not None
        if collectors:
            config = msgspec.structs.replace(config, collectors=("all", *collectors))
        order = Order(config=config, owner_pid=os.getpid(), force_clock=force_clock)
        send_order(self.process.stdin.fileno(), order)

    def report(self) -> Report:
        """Return what it reports of its start."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], START_SECONDS)[0], "the sampler said nothing"
        return decode_report(self.process.stdout.readline())

    def log(self) -> str:
        """Return what it has logged so far."""
        return os.pread(self._log.fileno(), 2**20, 0).decode()

    def end(self) -> tuple[int, str]:
        """Wait for its end; return its status and what it logged."""
        return self.process.wait(START_SECONDS), self.log()

    def close(self) -> None:
        """End it whatever it does."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self._log):
            assert pipe is not None
            pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
