"""Attaching: what is trusted, what is refused, and that a reader never changes anything."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from shm_monitor.errors import NotFoundError, SegmentError
from shm_monitor.segment import names
from shm_monitor.segment.mapping import identity, open_read_only
from shm_monitor.segment.view import View
from shm_monitor.worker.attaching import attach
from tests.support.children import output_of, run_python
from tests.support.light_sampler import LightSamplers
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.publishing import Bench

pytestmark = pytest.mark.processes


class Look(NamedTuple):
    """Everything about an object that a reader must leave as it is."""

    data: bytes
    inode: int
    mode: int
    owner: int
    links: int


def look_at(name: str) -> Look:
    """Return the object *name* as it is now."""
    path = names.object_path(name)
    found = os.stat(path)
    return Look(Path(path).read_bytes(), found.st_ino, found.st_mode, found.st_uid, found.st_nlink)


OUT_OF_MEMORY = """
import logging, os, resource, sys
from shm_monitor.worker.attaching import attach
from shm_monitor.errors import MonitorError
with open("/proc/self/statm") as file:
    allowed = int(file.read().split()[0]) * resource.getpagesize() + 2**20
resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
try:
    attach(sys.argv[1], timeout=0.0)
except MonitorError as error:
    print(type(error).__name__, error)
print(attach(sys.argv[1], timeout=0.0, required=False).should_prune())
"""


def test_a_reader_out_of_memory_gets_a_typed_error_and_changes_nothing(light: LightSamplers, name: str) -> None:
    light.one(name, slot_count=20_000, interval_seconds=60.0)
    before = look_at(name)
    said = output_of(OUT_OF_MEMORY, name)
    assert "UntrustedError" in said
    assert "Cannot allocate memory" in said
    assert said.endswith("False")
    assert look_at(name) == before


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "os._exit(3)",
        "os.kill(os.getpid(), 9)",
        "os.abort()",
        "raise SystemExit(1)",
        "os.execv('/bin/true', ['true'])",
    ],
)
def test_a_reader_that_ends_changes_nothing(light: LightSamplers, name: str, ending: str) -> None:
    light.one(name, interval_seconds=60.0)
    before = look_at(name)
    code = f"import os, sys\nfrom shm_monitor import attach\nr = attach(sys.argv[1])\nr.snapshot()\n{ending}"
    run_python(code, name)
    time.sleep(0.1)  # a resource tracker would act after the end of its process
    assert look_at(name) == before


def test_a_reader_writes_into_its_mapping_only_by_force_and_then_only_it_dies(light: LightSamplers, name: str) -> None:
    started = light.one(name)
    code = """
import ctypes, sys
from shm_monitor.worker.attaching import attach
reader = attach(sys.argv[1])
view = reader.view()
try:
    view.memory[0] = 1
except TypeError:
    print("refused", flush=True)
ctypes.c_uint8.from_address(reader.flag_address).value = 1
print("written")
"""
    done = run_python(code, name)
    assert done.stdout.split() == ["refused"]
    assert done.returncode == -11
    with attach(name) as reader:
        before = reader.snapshot().sequence
        time.sleep(0.05)
        assert reader.snapshot().sequence > before
        assert reader.status().pid == started.pid


def test_the_mapping_is_read_only_and_its_descriptor_closed(bench: Bench) -> None:
    before = len(os.listdir("/proc/self/fd"))
    reader = attach(bench.name, timeout=0.0)
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if names.object_path(bench.name) in line]
    assert sorted(line.split()[1] for line in lines) == ["r--s", "rw-s"], "the reader's, and the publisher's"
    # mmap keeps a duplicate of its descriptor, without which CPython could not say its size.
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    reader.close()
    del reader
    assert len(os.listdir("/proc/self/fd")) == before


def test_failing_to_attach_leaks_neither_descriptors_nor_mappings(bench: Bench) -> None:
    path = names.object_path(bench.name)
    with open(path, "r+b") as file:
        file.write(b"garbage!")
    before = len(os.listdir("/proc/self/fd")), Path("/proc/self/maps").read_text().count(path)
    with attach(bench.name, timeout=0.0, required=False) as reader:
        for _ in range(100):
            with pytest.raises(SegmentError):
                attach(bench.name, timeout=0.0)
            with pytest.raises(SegmentError):
                reader.view()
        assert traceback_length(reader) < 10
    assert (len(os.listdir("/proc/self/fd")), Path("/proc/self/maps").read_text().count(path)) == before


def traceback_length(reader: object) -> int:
    """Return how many frames the error of *reader* carries."""
    with pytest.raises(SegmentError) as caught:
        reader.view()  # type: ignore[attr-defined]
    return len(caught.traceback)


def test_absent_is_an_error_that_says_what_to_type(name: str) -> None:
    began = time.monotonic()
    with pytest.raises(NotFoundError, match=f"shm-monitor run --name {name}") as caught:
        attach(name, timeout=0.1)
    assert time.monotonic() - began >= 0.1
    assert caught.value.path == names.object_path(name)


def test_attach_waits_for_a_sampler_that_starts(light: LightSamplers, name: str) -> None:
    timer = threading.Timer(0.1, lambda: light.one(name))
    timer.start()
    with attach(name, timeout=10.0) as reader:
        assert reader.snapshot().sequence >= 1
    timer.join()


def test_an_object_is_only_visible_once_it_is_complete(light: LightSamplers, name: str) -> None:
    """It is made beside the name and renamed: nobody ever sees half of it."""
    seen: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        done = False
        while not done:
            done = stop.is_set()  # before the look: the last one comes after the sampler has reported
            try:
                View(name).sample()
                seen.append("whole")
            except NotFoundError:
                seen.append("absent")

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        light.one(name, metric_count=500, slot_count=2000)
        wait_until(lambda: "whole" in seen)
    finally:
        stop.set()
        watcher.join()
    first = seen.index("whole")
    assert set(seen[:first]) <= {"absent"}
    assert set(seen[first:]) == {"whole"}
    assert stat.S_IMODE(os.stat(names.object_path(name)).st_mode) == 0o600


def test_identity_follows_the_name(bench: Bench) -> None:
    memory, _, opened = open_read_only(bench.name)
    memory.close()
    assert identity(bench.name) == opened
    os.unlink(names.object_path(bench.name))
    assert identity(bench.name) is None


def test_the_light_side_needs_no_heavy_package(light: LightSamplers, name: str) -> None:
    light.one(name)
    heavy = {"numpy", "numba", "psutil", "pynvml", "msgspec", "fastapi", "dataclasses", "logging", "json"}
    code = """
import sys, shm_monitor
reader = shm_monitor.attach(sys.argv[1])
reader.should_prune(); reader.level()
print(*sys.modules)
"""
    loaded = set(output_of(code, name).split())
    assert not loaded & heavy
