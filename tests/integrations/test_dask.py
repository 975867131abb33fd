"""Dask's workers pause under pressure of their container, never all of a host, and come back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("distributed", reason="distributed is not installed")

import distributed

from shm_monitor.integrations.dask import PressurePlugin, _Guard
from shm_monitor.integrations.host_semaphore import HostSemaphore
from tests.support.surroundings import child_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.pressed import Driven

WAIT_SECONDS = 30.0
pytestmark = [
    pytest.mark.filterwarnings("ignore:Couldn't detect a suitable IP address:RuntimeWarning"),
]  # no network


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two workers in this process, with one thread each."""
    options = {"processes": False, "dashboard_address": None, "memory_limit": "4GiB", "protocol": "inproc://"}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **options) as made:
        yield made


def statuses(cluster: Any) -> list[str]:
    return sorted(worker.status.name for worker in cluster.workers.values())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.02)


def test_one_worker_pauses_one_goes_on_and_both_come_back(cluster: Any, driven: Driven) -> None:
    with distributed.Client(cluster) as client:
        client.register_plugin(PressurePlugin(sampler=driven.reader.name))
        driven.press()
        until(lambda: statuses(cluster) == ["paused", "running"])
        futures = client.map(lambda x: x + 1, range(20), pure=False)
        assert client.gather(futures) == list(range(1, 21)), "what is paused loses nothing"
        for _ in range(20):  # two seconds of the memory manager, which undoes what others set
            assert statuses(cluster) == ["paused", "running"]
            time.sleep(0.1)
        driven.calm()
        until(lambda: statuses(cluster) == ["running", "running"])


def test_workers_are_never_both_paused_and_are_back_with_the_first_look_after_calm(
    cluster: Any, driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker looks ten times a second, so that is well within a second (docs/integrations.md has the measurement)."""
    paused: set[str] = set()
    most, looks = [0], [0]
    status = distributed.Worker.status

    def set_status(worker: Any, value: Any) -> None:
        (paused.add if value is distributed.Status.paused else paused.discard)(worker.address)
        most[0] = max(most[0], len(paused))
        status.fset(worker, value)

    def counted(guard: Any, worker: Any, memory: int) -> None:
        looks[0] += worker.address in paused and not driven.reader.should_prune()
        decide(guard, worker, memory)

    decide = _Guard.decide
    monkeypatch.setattr(_Guard, "decide", counted)
    monkeypatch.setattr(distributed.Worker, "status", property(status.fget, set_status))
    with distributed.Client(cluster) as client:
        client.register_plugin(PressurePlugin(sampler=driven.reader.name))
        for _ in range(3):
            driven.press()
            until(lambda: len(paused) == 1)
            looks[0] = 0
            driven.calm()
            until(lambda: not paused)
            assert looks[0] <= 1, "of the worker that was paused"

    assert most == [1]


def test_a_pause_has_an_end(cluster: Any, driven: Driven) -> None:
    with distributed.Client(cluster) as client:
        client.register_plugin(PressurePlugin(sampler=driven.reader.name, max_pause=0.3))
        driven.press()
        until(lambda: statuses(cluster) == ["paused", "running"])
        until(lambda: statuses(cluster) == ["running", "running"])


def test_a_plugin_that_is_taken_out_leaves_nothing_behind(cluster: Any, driven: Driven) -> None:
    with distributed.Client(cluster) as client:
        client.register_plugin(PressurePlugin(sampler=driven.reader.name))
        driven.press()
        until(lambda: statuses(cluster) == ["paused", "running"])
        client.unregister_worker_plugin("shm-monitor-pressure")
        until(lambda: statuses(cluster) == ["running", "running"])


def test_without_a_sampler_nothing_pauses(cluster: Any, name: str) -> None:
    with distributed.Client(cluster) as client:
        client.register_plugin(PressurePlugin(sampler=name))
        assert client.gather(client.map(lambda x: x, range(5))) == list(range(5))
        assert statuses(cluster) == ["running", "running"]


def test_a_token_is_held_by_one_process_and_comes_back_at_its_death(name: str) -> None:
    held = "import sys, time; from shm_monitor.integrations.host_semaphore import HostSemaphore\n"
    held += "assert HostSemaphore(sys.argv[1], '~dask', 1).take(); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", held, name], env=child_environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        mine, wider = HostSemaphore(name, "~dask", 1), HostSemaphore(name, "~dask", 2)
        assert not mine.take()
        assert wider.take()
        process.kill()
        process.wait()

    until(mine.take)
    mine.give_back()
    wider.give_back()


def test_two_in_one_process_do_not_share_a_token(name: str) -> None:
    one, other = HostSemaphore(name, "~dask", 1), HostSemaphore(name, "~dask", 1)

    assert one.take()
    assert one.take(), "held already"
    assert not other.take()
    one.give_back()
    assert other.take()
    other.give_back()


def test_a_forked_child_holds_no_token_of_its_parent(name: str) -> None:
    mine = HostSemaphore(name, "~dask", 1)
    assert mine.take()
    with warnings.catch_warnings():  # 3.12: of threads that other tests have left
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os._exit(mine.take())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child took what its parent holds"
    assert not HostSemaphore(name, "~dask", 1).take()
    mine.give_back()
