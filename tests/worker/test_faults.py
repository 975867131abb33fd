"""Faults of the kernel under a worker: it raises nothing for what a sampler does."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from shm_monitor.acting.wait_for_calm import calm
from shm_monitor.worker.attaching import attach
from tests.support.children import NOT_PERMITTED, PRIVATE_SHM, run_python

if TYPE_CHECKING:
    from shm_monitor.worker.reader import Reader
    from tests.support.publishing import Bench

FAULTS = ("ENOSPC", "EMFILE", "ENOMEM", "EACCES", "EIO")
CALLS = ("open", "stat", "fstat", "mkdir", "pread", "pwrite")


def ask_everything(reader: Reader) -> None:
    """Call every public method."""
    reader.should_prune(), reader.level(), reader.shed_fraction(), reader.reasons()
    reader.snapshot(), reader.explain(), reader.headroom(), reader.outlook(), reader.history(), reader.status()
    reader.request(), reader.shed_bytes(), reader.episode(), reader.age(), reader.flag_address
    reader.present(sheddable_bytes=5)
    reader.wait(0)
    calm(0, reader=reader)
    reader.on_change(lambda _: None)()


def let_fail(monkeypatch: pytest.MonkeyPatch, call: str, fault: str) -> None:
    """Have *call* of this process fail by *fault*."""
    number = getattr(errno, fault)

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_reader_raises_nothing_when_a_call_of_the_kernel_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str, fault: str
) -> None:
    with attach(bench.name, required=False, present=True) as before:
        ask_everything(before)
        let_fail(monkeypatch, call, fault)
        with attach(bench.name, timeout=0, required=False, present=True) as reader:
            ask_everything(reader)
        ask_everything(before)
        monkeypatch.undo()


@pytest.mark.processes
def test_a_worker_is_not_present_where_shared_memory_is_full_and_raises_nothing() -> None:
    code = f"""{PRIVATE_SHM}
private_shm("size=16k,nr_inodes=10")
import os
from shm_monitor.worker.attaching import attach
attach("full", timeout=0, required=False, present=True).close()
with open("/dev/shm/filler", "wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        pass
from tests.worker.test_faults import ask_everything
reader = attach("other", timeout=0, required=False, present=True)
ask_everything(reader)
print(reader.request())
"""
    done = run_python(code)
    if done.returncode == NOT_PERMITTED:
        pytest.skip("this user may mount nothing")
    assert done.returncode == 0, done.stderr
    assert "not present" in done.stderr
    assert done.stdout == "None\n"
