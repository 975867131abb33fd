"""Ranks of one job, forked from a process that has loaded their framework once: loading takes longer than training.

``python -m tests.support.forked_ranks MODULE FUNCTION COUNT FOLDER ARGUMENT ...``: each rank calls
``FUNCTION(rank, *arguments)`` of MODULE with the environment that launchers give, and its result goes
to ``FOLDER/RANK.json``.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.surroundings import child_environment

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_SECONDS = 400  # of a test that uses this: loading a framework takes 8 s of CPU, whoever else wants it
LONGEST_SECONDS = TIMEOUT_SECONDS - 20.0


def results_of(module: str, function: str, count: int, folder: Path, *arguments: str) -> list[Any]:
    """Run *count* ranks; return what each of them returned."""
    program = [sys.executable, "-P", "-m", __name__, module, function, str(count), str(folder), *arguments]
    with subprocess.Popen(
        program, env=child_environment(OMP_NUM_THREADS="1"), stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            _, errors = process.communicate(timeout=LONGEST_SECONDS)
        finally:
            if process.poll() is None:  # ranks wait for each other; none of them may stay
                os.killpg(process.pid, 9)
    assert process.returncode == 0, errors
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(count)]


def main(module: str, function: str, count: int, folder: Path, arguments: list[str]) -> int:
    """Load, fork, wait; return 0 when every rank has come to its end."""
    work: Callable[..., Any] = getattr(importlib.import_module(module), function)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = {_forked(rank, count, port, folder, work, arguments) for rank in range(count)}
    while ranks:
        pid, status = os.wait()
        ranks.discard(pid)
        if status:
            for one in ranks:
                os.kill(one, 9)
            return 1
    return 0


def _forked(rank: int, count: int, port: int, folder: Path, work: Callable[..., Any], arguments: list[str]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "NODE_RANK": "0"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": str(count)}
        (folder / f"{rank}.json").write_text(json.dumps(work(rank, *arguments)))
        status = 0
    finally:
        if status:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:]))
