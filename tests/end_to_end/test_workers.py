"""Workers of every kind ask a real sampler: fork, spawn, forkserver, pools, threads, subprocesses, data loaders."""

from __future__ import annotations

import concurrent.futures
import importlib.util
import multiprocessing as mp
import os
import pickle
import signal
import subprocess
import sys
import threading
import uuid
from typing import TYPE_CHECKING

import pytest

import shm_monitor as sm
from tests.support.surroundings import UNMEASURED, child_environment, remove_files
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def manager() -> Iterator[sm.ResourceManager]:
    """A real sampler for the whole module."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    try:
        with sm.ResourceManager(sm.ResourceConfig(name=name, check_interval=0.1, observation_period=2.0)) as made:
            yield made
    finally:
        remove_files(name)


def ask(name: str) -> tuple[bool, str, int]:
    """What a worker does: attach, ask, look; runs in a process of its own."""
    with sm.attach(name) as reader:
        return reader.should_prune(), reader.status().state, reader.snapshot().sequence


def ask_reader(reader: sm.Reader) -> tuple[bool, str]:
    """The same with a reader that was handed over."""
    return reader.should_prune(), reader.status().state


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_pool_of_workers_attaches_by_name(manager: sm.ResourceManager, method: str) -> None:
    with mp.get_context(method).Pool(2) as pool:
        answers = pool.map(ask, [manager.name] * 8)

    assert all(answer[:2] == (False, "live") and answer[2] > 0 for answer in answers)


def test_a_forked_pool_inherits_the_manager(name: str) -> None:
    """In a program of its own: this one has threads, and Python 3.12 warns of a fork beside threads."""
    program = (
        "import multiprocessing as mp, sys, shm_monitor as sm\n"
        "def ask(_):\n"
        "    return manager.should_prune(), sm.attach(manager.name).status().state, manager.owns_sampler\n"
        "with sm.ResourceManager(sm.ResourceConfig(name=sys.argv[1])) as manager:\n"
        "    with mp.get_context('fork').Pool(2) as pool:\n"
        "        print(set(pool.map(ask, range(8))))\n"
    )
    out = subprocess.run(
        [sys.executable, "-P", "-c", program, name], env=child_environment(), capture_output=True, text=True, check=True
    ).stdout

    assert out.strip() == "{(False, 'live', False)}"


def test_a_reader_can_be_handed_to_a_worker(manager: sm.ResourceManager) -> None:
    """It pickles as its name and attaches again over there."""
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=mp.get_context("spawn")) as pool:
        assert pool.submit(ask_reader, manager.reader).result() == (False, "live")
    assert pickle.loads(pickle.dumps(manager.reader)).name == manager.name


def test_a_forked_child_of_the_owner_is_just_a_reader_and_stops_nothing(name: str) -> None:
    program = (
        "import os, sys, shm_monitor as sm\n"
        "manager = sm.ResourceManager(sm.ResourceConfig(name=sys.argv[1], check_interval=0.1))\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    fine = manager.status().state == 'live' and not manager.should_prune() and not manager.owns_sampler\n"
        "    manager.close()\n"
        "    os._exit(0 if fine else 1)\n"
        "status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "alive = manager.status().state == 'live' and manager.owns_sampler\n"
        "manager.close()\n"
        "sys.exit(status if alive else 9)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program, name], env=child_environment(), check=False)

    assert done.returncode == 0


def test_threads_share_one_reader(manager: sm.ResourceManager) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask_reader(manager.reader), range(200)))

    assert set(answers) == {(False, "live")}


def test_a_subprocess_finds_the_sampler_by_the_environment(manager: sm.ResourceManager) -> None:
    program = "import shm_monitor as sm; r = sm.attach(); print(r.name, r.should_prune())"
    out = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=child_environment(SHM_MONITOR_NAME=manager.name),
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert out.split() == [manager.name, "False"]


def test_a_pytorch_data_loader_asks_in_its_workers(manager: sm.ResourceManager) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    import torch.utils.data

    class Answers(torch.utils.data.Dataset[int]):  # type: ignore[misc]
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> int:
            return int(sm.attach(manager.name).status().state == "live")

    loader = torch.utils.data.DataLoader(Answers(), num_workers=2, multiprocessing_context="fork")
    assert [int(batch) for batch in loader] == [1] * 8


def test_a_worker_loads_nothing_heavy(manager: sm.ResourceManager) -> None:
    heavy = "numpy numba psutil pynvml msgspec fastapi pydantic asyncio multiprocessing json logging typing enum"
    program = (
        "import sys, shm_monitor; r = shm_monitor.attach(sys.argv[1]); r.should_prune();"
        f"print([m for m in {heavy.split()} if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-P", "-c", program, manager.name],
        env=child_environment(**UNMEASURED),
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert out.strip() == "[]"


def test_two_managers_that_race_for_a_name_share_one_sampler(name: str) -> None:
    """Both work, one owns; closing the one that does not own stops nothing."""
    config = sm.ResourceConfig(name=name, check_interval=0.1)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        managers = list(pool.map(lambda _: sm.ResourceManager(config), range(2)))
    try:
        owners = [one for one in managers if one.owns_sampler]
        pids = {one.status().pid for one in managers}
        assert len(owners) == 1
        assert len(pids) == 1
        next(one for one in managers if not one.owns_sampler).close()
        assert owners[0].status().state == "live"
    finally:
        for one in managers:
            one.close()


def test_the_death_of_the_owner_ends_the_sampler(name: str) -> None:
    """SIGKILL too, also while a forked worker of the owner lives on."""
    program = (
        "import os, sys, time, shm_monitor as sm\n"
        "manager = sm.ResourceManager(sm.ResourceConfig(name=sys.argv[1]))\n"
        "worker = os.fork()\n"
        "if worker == 0:\n"
        "    time.sleep(600)\n"
        "    os._exit(0)\n"
        "print(manager.status().pid, worker, flush=True)\n"
        "time.sleep(600)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-P", "-c", program, name], env=child_environment(), stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    sampler, worker = map(int, owner.stdout.readline().split())
    try:
        owner.kill()
        owner.wait()
        wait_until(lambda: not _exists(sampler))
    finally:
        owner.stdout.close()
        os.kill(worker, signal.SIGKILL)


def test_a_disabled_manager_starts_nothing_and_never_asks(name: str) -> None:
    with sm.ResourceManager(sm.ResourceConfig(name=name, enabled=False)) as manager:
        assert manager.should_prune() is False
        assert not manager.owns_sampler
        assert manager.status().state == "absent"


def test_closing_from_many_threads_is_harmless(name: str) -> None:
    manager = sm.ResourceManager(sm.ResourceConfig(name=name))
    threads = [threading.Thread(target=manager.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sm.attach(name, timeout=0.0, required=False).status().state == "absent"


def _exists(pid: int) -> bool:
    """A zombie counts as gone: whoever adopted it will reap it."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except FileNotFoundError:
        return False
