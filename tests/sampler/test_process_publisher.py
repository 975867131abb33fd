"""A real sampler names the processes that its samples show, for every reader, and after its own death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from shm_monitor.process_names import name_of
from shm_monitor.segment import process_file
from shm_monitor.worker.attaching import attach
from tests.support.real_sampler import RealSampler, fast
from tests.support.surroundings import files_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from shm_monitor.worker.reader import Reader


def shown_in(reader: Reader) -> dict[int, str]:
    """Return the names in the process table, by pid."""
    return {one.pid: one.name for one in reader.snapshot().workers.processes}


@pytest.mark.processes
def test_the_process_table_says_who_is_who(name: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import sys; sys.stdin.read()")
    command = [sys.executable, str(tmp_path / "train.py"), "--token", "hunter2"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        with RealSampler(fast(name)) as sampler, attach(name, timeout=60.0) as reader:
            wait_until(lambda: shown_in(reader).get(child.pid) == "train.py")
            shown = shown_in(reader)
            assert shown[sampler.process.pid] == "shm-monitor sampler"
            assert shown[os.getpid()] == name_of(os.getpid()).name
            assert all("hunter2" not in one for one in shown.values())
    finally:
        child.kill()
        child.communicate()


@pytest.mark.processes
def test_the_names_outlive_a_killed_sampler_and_go_with_one_that_stops(name: str) -> None:
    with RealSampler(fast(name)) as sampler, attach(name, timeout=60.0) as reader:
        wait_until(lambda: os.getpid() in shown_in(reader))
        sampler.process.kill()
        sampler.process.wait()
        assert shown_in(reader)[sampler.process.pid] == "shm-monitor sampler"
    with RealSampler(fast(name)) as sampler:
        sampler.report()
        wait_until(lambda: sampler.process.pid in process_file.read(name))
        sampler.process.send_signal(signal.SIGTERM)
        sampler.process.wait()
        assert not [path for path in files_of(name) if path.endswith("~processes")]
