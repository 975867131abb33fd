"""Programs whose threads are green (gevent, eventlet), and event loops that are not asyncio's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shm_monitor.errors import MonitorError
from shm_monitor.worker.attaching import attach
from tests.support.children import output_of

if TYPE_CHECKING:
    from tests.support.light_sampler import LightSamplers
    from tests.support.publishing import Bench


@pytest.mark.processes
def test_a_wait_sleeps_by_the_sleep_that_a_program_has_put_in_place(light: LightSamplers, name: str) -> None:
    light.one(name)
    code = """
import sys, time
slept, real = [], time.sleep
def sleep(seconds):
    slept.append(seconds)
    real(seconds)
time.sleep = sleep
import shm_monitor as sm
sm.attach(sys.argv[1], watch=["memory"]).wait(0.1)
print(len(slept) > 1)
"""
    assert output_of(code, name) == "True"


@pytest.mark.processes
def test_greenlets_run_on_while_one_waits_and_another_listens(light: LightSamplers, name: str) -> None:
    pytest.importorskip("gevent")
    light.one(name, pressed=("cpu",))
    code = """
from gevent import monkey
monkey.patch_all()
import sys, gevent
import shm_monitor as sm
reader = sm.attach(sys.argv[1], watch=["cpu"])
heard = []
end = reader.on_change(heard.append)
turns = []
waiting = gevent.spawn(reader.wait, 1.0)
while not waiting.ready():
    turns.append(None)
    gevent.sleep(0.01)
end()
print(len(turns) > 5)
"""
    assert output_of(code, name) == "True"


def test_changed_refuses_an_event_loop_that_is_not_asyncios(bench: Bench) -> None:
    with attach(bench.name) as reader, pytest.raises(MonitorError, match="event loop of asyncio"):
        reader.changed(1.0).send(None)
