"""Tasks of a real Celery worker wait in their processes until memory is there, and all are done, once."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("celery", reason="celery is not installed (make test-frameworks)")

import shm_monitor as sm
from shm_monitor.worker.injecting import inject
from tests.support.network_namespaces import answer
from tests.support.real_sampler import RealSampler, fast
from tests.support.surroundings import ROOT, child_environment
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TASKS = 4


@pytest.fixture
def pressed(name: str) -> Iterator[sm.Reader]:
    """The reader of a sampler that presses."""
    with RealSampler(fast(name, observation_period=0.5, allow_injection=True)) as sampler, sm.attach(name) as reader:
        sampler.report()
        inject(reader, {"memory_percent": 99.0}, 60.0)
        wait_until(reader.should_prune)
        yield reader


def test_no_task_begins_while_memory_is_short_and_all_are_done_once_after_it(
    pressed: sm.Reader, tmp_path: Path
) -> None:
    done, results = tmp_path / "done", tmp_path / "results"
    results.mkdir()
    example = ROOT / "docs" / "examples" / "celery_calm.py"
    command = [sys.executable, "-P", "-m", "tests.support.celery_worker", str(example), str(done), str(results)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(SHM_MONITOR_NAME=pressed.name),
    ) as worker:
        try:
            assert answer(worker) == "ready"
            assert answer(worker, f"start {TASKS}") == str(TASKS)
            time.sleep(1.0)  # a task takes a millisecond
            assert not done.exists()

            inject(pressed, {"memory_percent": 10.0}, 60.0)
            assert answer(worker, "sum") == str(TASKS * 1_000_000 + sum(range(TASKS)))
            ids = done.read_text().split()
            assert len(ids) == len(set(ids)) == TASKS
        finally:
            worker.communicate()
