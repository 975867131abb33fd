"""Whatever the bytes of a segment are: typed errors for readers and the next sampler, no crash, no endless loop."""

from __future__ import annotations

import os
import struct
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from shm_monitor.errors import CorruptError, IncompatibleError, MonitorError, NotReadyError
from shm_monitor.segment import layout, names
from shm_monitor.segment.layout import HEADER, Header
from shm_monitor.segment.view import View
from shm_monitor.worker.attaching import attach
from tests.support.children import PYTHON
from tests.support.corruption_process import BOUNDARIES
from tests.support.surroundings import child_environment

if TYPE_CHECKING:
    from tests.support.publishing import Bench


def put(name: str, offset: int, data: bytes) -> None:
    """Overwrite bytes of the object *name*."""
    with open(names.object_path(name), "r+b") as file:
        file.seek(offset)
        file.write(data)


def resize(name: str, size: int) -> None:
    """Put an object of *size* in the place of *name*; the live one keeps its bytes, or its sampler would crash."""
    path = names.object_path(name)
    with open(path, "rb") as file:
        data = file.read()
    os.unlink(path)
    with open(path, "xb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(data)
        file.truncate(size)


def damaged_by(name: str, **fields: Any) -> MonitorError:
    """Return the error of attaching once header *fields* have been changed."""
    with open(names.object_path(name), "rb") as file:
        header = Header._make(HEADER.unpack(file.read(HEADER.size)))
    put(name, 0, HEADER.pack(*header._replace(**fields)))
    with pytest.raises(MonitorError) as caught:
        attach(name, timeout=0.0)
    return caught.value


def test_a_magic_of_zero_is_a_sampler_that_has_not_finished_starting(bench: Bench) -> None:
    assert isinstance(damaged_by(bench.name, magic=0), NotReadyError)


def test_another_magic_is_damage(bench: Bench) -> None:
    assert isinstance(damaged_by(bench.name, magic=layout.MAGIC ^ 1 << 40), CorruptError)


@pytest.mark.parametrize("major", [1, 2])
def test_another_major_version_is_incompatible_and_says_both(bench: Bench, major: int) -> None:
    """Whatever else its header has: nothing behind the version is looked at."""
    error = damaged_by(bench.name, major=major, header_size=0x98, flags_offset=0, ring_offset=1)
    assert isinstance(error, IncompatibleError)
    assert f"{major}.0" in str(error)
    assert "version 3" in str(error)
    with attach(bench.name, timeout=0.0, required=False) as reader:
        assert reader.status().state == "incompatible"
        assert reader.should_prune() is False


def test_a_newer_minor_version_can_be_read(bench: Bench) -> None:
    put(bench.name, 12, struct.pack("<I", 7))
    with attach(bench.name, timeout=0.0) as reader:
        assert reader.snapshot().sequence == 1


@pytest.mark.parametrize(
    "field",
    [
        *("header_size", "endian_tag", "total_size", "schema_offset", "flags_offset", "flag_count", "flag_stride"),
        *("requests_offset", "worker_count", "first_worker_flag", "slot_stride"),
    ],
)
def test_a_field_that_no_sampler_writes_is_damage(bench: Bench, field: str) -> None:
    limit = 2**64 if field in {"total_size", "schema_offset", "flags_offset", "requests_offset"} else 2**32
    good = getattr(View(bench.name).header, field)
    for value in BOUNDARIES:
        if value < limit and value != good:
            assert isinstance(damaged_by(bench.name, **{field: value}), CorruptError)


@pytest.mark.parametrize("size", [0, 1, HEADER.size - 1])
def test_an_object_shorter_than_a_header_is_not_ready(bench: Bench, size: int) -> None:
    """A sampler of another kind may have made it this moment; nobody waits for it longer than asked."""
    resize(bench.name, size)
    with pytest.raises(NotReadyError, match=f"{size} bytes"):
        attach(bench.name, timeout=0.0)


@pytest.mark.parametrize("change", [-1, -4096, 1, 4096, 2**32])
def test_an_object_of_another_size_than_it_says_is_damage(bench: Bench, change: int) -> None:
    resize(bench.name, os.path.getsize(names.object_path(bench.name)) + change)
    with pytest.raises(CorruptError, match="total size"):
        attach(bench.name, timeout=0.0)


def test_a_damaged_schema_is_told_when_it_is_needed(bench: Bench) -> None:
    """should_prune() does not need it, and goes on answering."""
    put(bench.name, layout.SCHEMA_OFFSET + 10, b"!")
    with attach(bench.name, timeout=0.0) as reader:
        assert reader.should_prune() is False
        assert reader.status().state == "corrupt"
        with pytest.raises(CorruptError, match="hash"):
            reader.snapshot()
    with pytest.raises(CorruptError):
        attach(bench.name, timeout=0.0, watch=["memory"])


def test_a_ring_without_one_whole_sample_is_said_at_once(bench: Bench) -> None:
    header = View(bench.name).header
    put(bench.name, header.ring_offset, os.urandom(header.slot_count * header.slot_stride))
    with attach(bench.name, timeout=0.0) as reader, pytest.raises(NotReadyError, match="no whole sample"):
        reader.snapshot()


def test_a_sample_torn_while_attached_leaves_the_last_good_one_marked_degraded(bench: Bench) -> None:
    with attach(bench.name, timeout=0.0) as reader:
        assert not reader.snapshot().degraded
        view = reader.view()
        bench.publish()
        put(bench.name, view.header.ring_offset + 2 * view.header.slot_stride + 60, b"\xff")
        snapshot = reader.snapshot()
        assert (snapshot.sequence, snapshot.degraded) == (1, True)


@pytest.mark.processes
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "count", [pytest.param(400, id="400"), pytest.param(4_000, id="4000", marks=[pytest.mark.slow])]
)
def test_random_damage_never_crashes_anybody(name: str, count: int) -> None:
    """Two processes, so that a crash is seen and both cores are used; what to run again is the seed."""
    children = [
        subprocess.Popen(
            [*PYTHON, "-W", "error", "-m", "tests.support.corruption_process", f"{name}-{seed}", str(count // 2), seed],
            env=child_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for seed in ("31", "32")
    ]
    for child in children:
        said, _ = child.communicate(timeout=550)
        assert child.returncode == 0, said[-4000:]
