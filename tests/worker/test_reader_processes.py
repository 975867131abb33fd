"""One reader in many threads and processes: fork, spawn, forkserver, pickled, inherited."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shm_monitor.errors import MonitorError
from shm_monitor.worker.attaching import attach
from shm_monitor.worker.reader import Reader
from tests.support.children import PYTHON, output_of
from tests.support.light_sampler import LightSamplers, end
from tests.support.reader_process import answers_of
from tests.support.surroundings import child_environment
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.publishing import Bench

pytestmark = pytest.mark.processes

PRESSED = {"pressed": ("cpu",)}


def test_closing_while_other_threads_ask_crashes_nobody(light: LightSamplers, name: str) -> None:
    light.one(name, limit_count=5, pressed=())
    watch = ["memory", "cpu", "network", "gpu:0", "gpu-memory:0"]
    before = sys.getswitchinterval()
    for _ in range(30):
        reader = attach(name, watch=watch)
        stop = threading.Event()
        threads = [threading.Thread(target=ask_until, args=(reader, stop)) for _ in range(4)]
        for thread in threads:  # not in a hurry: under coverage Python 3.11 installs one trace function at a time
            thread.start()
        sys.setswitchinterval(1e-6)
        try:
            reader.close()
        finally:
            sys.setswitchinterval(before)
        stop.set()
        for thread in threads:
            thread.join()


def ask_until(reader: Reader, stop: threading.Event) -> None:
    """Ask everything until *stop*; only a MonitorError may come."""
    while not stop.is_set():
        reader.should_prune()
        try:
            reader.snapshot()
        except MonitorError:
            continue


def test_any_number_of_threads_may_ask_over_restarts(light: LightSamplers, name: str) -> None:
    started = light.one(name, metric_count=3)
    reader = attach(name)
    stop = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask_until, reader, stop) for _ in range(8)]
        for metric_count in (3, 4, 4):
            end(started.pid)
            started = light.one(name, metric_count=metric_count)
            time.sleep(0.05)
        wait_until(lambda: reader.status().state == "live")
        stop.set()
    assert [one.exception() for one in asking] == [None] * 8
    assert len(reader.snapshot().other) == 4


def test_a_pickled_reader_attaches_again_by_name(light: LightSamplers, name: str) -> None:
    light.one(name, **PRESSED)
    with attach(name, watch=["cpu"], on_stale="always") as reader:
        data = pickle.dumps(reader)
        assert len(data) < 500
        with pickle.loads(data) as again:
            assert repr(again) == repr(reader)
            assert again.should_prune() is True
    with pickle.loads(data) as again:
        end(again.status().pid or 0)
        assert again.status().state == "stale"


def test_a_reader_unpickled_without_a_sampler_waits_for_one(name: str, bench: Bench) -> None:
    data = pickle.dumps(attach(bench.name))
    bench.close()
    with pickle.loads(data) as reader:
        assert reader.should_prune() is False


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_reader_goes_to_workers_of_every_start_method(light: LightSamplers, name: str, method: str) -> None:
    """In a child of its own: a fork of this process would copy its threads' locks."""
    code = """
import multiprocessing, sys
from shm_monitor.worker.attaching import attach
from tests.support.reader_process import answers_of
if __name__ == "__main__":
    reader = attach(sys.argv[1], watch=["cpu"])
    with multiprocessing.get_context(sys.argv[2]).Pool(2) as pool:
        print([one[0] for one in pool.map(answers_of, [reader] * 4)], reader.should_prune())
        pool.close()
        pool.join()
"""
    started = light.one(name, **PRESSED)
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"{name}.py"
    path.write_text(code)
    try:
        done = subprocess.run(
            [*PYTHON, str(path), name, method],
            env=child_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        path.unlink()
    assert done.stdout.strip() == "[True, True, True, True] True", done.stderr
    assert done.stderr == "", "no word from a resource tracker"
    with attach(name) as reader:
        assert reader.status().pid == started.pid
        assert reader.status().state == "live"


def test_an_inherited_reader_works_in_a_forked_child_and_its_end_changes_nothing(
    light: LightSamplers, name: str
) -> None:
    code = """
import os, sys
from shm_monitor.worker.attaching import attach
reader = attach(sys.argv[1], watch=["cpu"])
ask = reader.should_prune
child = os.fork()
if child == 0:
    good = ask() and reader.snapshot().sequence > 0
    reader.close()
    os._exit(0 if good else 1)
print(os.waitpid(child, 0)[1], ask())
"""
    light.one(name, **PRESSED)
    assert output_of(code, name) == "0 True"


def test_a_process_pool_takes_readers_and_names(light: LightSamplers, name: str) -> None:
    light.one(name, **PRESSED)
    context = multiprocessing.get_context("spawn")
    with attach(name, watch=["cpu"]) as reader, ProcessPoolExecutor(1, mp_context=context) as pool:
        answer, sequence, state = pool.submit(answers_of, reader).result(60)
    assert (answer, state) == (True, "live")
    assert sequence > 0
