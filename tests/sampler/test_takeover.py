"""A new sampler goes on where a dead one stopped, if every byte means the same; else it makes a new segment."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from shm_monitor.errors import UntrustedError
from shm_monitor.schema import Level
from shm_monitor.segment import layout, names
from shm_monitor.segment.flags import DIED
from shm_monitor.segment.layout import LIVE, RETIRED
from shm_monitor.segment.lock import Lock
from shm_monitor.segment.names import LOCK_SUFFIX, side_path
from shm_monitor.segment.view import View
from shm_monitor.worker.attaching import attach
from tests.support.children import NOBODY, output_of, run_python
from tests.support.light_sampler import LightSamplers, end
from tests.support.publishing import Bench, small_schema
from tests.support.surroundings import remove_files
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.processes


@pytest.fixture
def left_behind(light: LightSamplers, name: str) -> str:
    """The name of a segment whose sampler was killed; 8 metrics, 64 slots."""
    started = light.one(name)
    with attach(name) as reader:
        while reader.snapshot().sequence < 20:
            time.sleep(0.005)
    end(started.pid)
    return name


def change(name: str, offset: int, data: bytes) -> None:
    """Overwrite bytes of the object *name*."""
    with open(names.object_path(name), "r+b") as file:
        file.seek(offset)
        file.write(data)


def test_ring_head_and_object_go_on_and_the_epoch_changes(light: LightSamplers, left_behind: str) -> None:
    old = View(left_behind)
    epoch, head = old.word(layout.EPOCH_OFFSET), old.word(layout.HEAD_OFFSET)
    before = [sample.number for sample in old.samples()]
    started = light.one(left_behind)

    assert started.taken_over
    assert started.head == head + 1
    assert View(left_behind).identity == old.identity
    assert old.word(layout.EPOCH_OFFSET) == started.epoch != epoch
    assert old.word(layout.PID_OFFSET) == started.pid
    assert old.word(layout.INCARNATION_OFFSET) == 2
    assert before[-1] in [sample.number for sample in old.samples()]


def test_what_a_sampler_killed_in_its_start_left_beside_it_goes(light: LightSamplers, left_behind: str) -> None:
    half = f"{names.object_path(left_behind)}{names.NEW_SUFFIX}"
    with open(half, "wb") as file:
        file.write(bytes(4096))

    assert light.one(left_behind).taken_over
    assert not os.path.exists(half)


def test_between_the_start_and_the_first_sample_readers_still_see_the_death(
    light: LightSamplers, make_bench: Callable[..., Bench], left_behind: str
) -> None:
    """The successor may take seconds to its first sample."""
    with attach(left_behind, on_stale="always") as reader:
        numba = make_bench(left_behind, small_schema(8, 2), slot_count=64, by_kernel=True)
        assert numba.publisher.taken_over
        assert reader.status().state == "stale"
        assert reader.should_prune() is True
        numba.publish()
        assert reader.status().state == "live"
        assert reader.should_prune() is False


def test_a_successor_killed_before_its_first_sample_is_the_same_death(
    left_behind: str, caplog: pytest.LogCaptureFixture
) -> None:
    code = """
import os, sys
from tests.support.publishing import Bench, small_schema
bench = Bench(sys.argv[1], small_schema(8, 2), slot_count=64, by_kernel=True)
assert bench.publisher.taken_over
print("taken", flush=True)
os._exit(1)
"""
    with attach(left_behind, on_stale="always") as reader:
        assert reader.should_prune() is True
        assert run_python(code, left_behind).stdout == "taken\n"
        assert reader.should_prune() is True
        assert reader.status().state == "stale"
        assert reader.status().restarts == 0
        assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


@pytest.mark.parametrize(
    ("field", "offset", "value"),
    [
        ("another schema", layout.SCHEMA_OFFSET + 30, b"?"),
        ("another boot", 0x60, b"another boot id."),
        ("other capabilities", layout.CAPABILITIES_OFFSET, b"\x02"),
        ("fewer flags", 0x48, b"\x02\x00\x00\x00"),
        ("another version", 8, b"\x01"),
        ("a magic that is none", 0, b"?"),
        ("no sample", layout.HEAD_OFFSET, bytes(8)),
        ("a head from nowhere", layout.HEAD_OFFSET, b"\xff" * 8),
        ("a state from nowhere", layout.STATE_OFFSET, b"\x09"),
    ],
)
def test_what_is_not_the_same_in_every_byte_is_replaced(
    light: LightSamplers, left_behind: str, field: str, offset: int, value: bytes
) -> None:
    """And the name is good again, whatever was wrong."""
    old = View(left_behind)
    change(left_behind, offset, value)
    started = light.one(left_behind)

    assert not started.taken_over, field
    assert started.head == 1
    with attach(left_behind, timeout=0.0) as reader:
        assert reader.view().identity != old.identity
        snapshot = reader.snapshot()
        assert snapshot.other["cpu.m0_bytes"] == snapshot.sequence
        assert reader.status().state == "live"


def test_an_incarnation_count_at_its_end_starts_again(light: LightSamplers, left_behind: str) -> None:
    change(left_behind, layout.INCARNATION_OFFSET, b"\xff" * 8)
    assert light.one(left_behind).taken_over
    assert View(left_behind).word(layout.INCARNATION_OFFSET) == 0


def test_a_sampler_with_other_capabilities_makes_readers_attach_again(light: LightSamplers, name: str) -> None:
    """Their hot byte would stay calm for ever where nobody marks a death."""
    first = light.one(name, by_kernel=True)
    with attach(name, on_stale="always") as reader:
        assert reader.should_prune() is False
        end(first.pid)
        second = light.one(name, by_kernel=False, stale_after_seconds=0.5)
        assert not second.taken_over
        wait_until(lambda: not reader.should_prune())
        end(second.pid)
        wait_until(reader.should_prune)


def test_the_old_segment_is_retired_only_once_the_new_one_can_be_read(
    make_bench: Callable[..., Bench], left_behind: str
) -> None:
    old = View(left_behind)
    bench = make_bench(left_behind, small_schema(3))
    assert old.word(layout.STATE_OFFSET) == LIVE, "dead, but not replaced yet"
    assert View(left_behind).identity == old.identity
    bench.publish()
    assert old.word(layout.STATE_OFFSET) == RETIRED
    assert all(old.flag(index) & DIED for index in range(layout.FLAG_COUNT))
    assert View(left_behind).identity != old.identity


def test_the_older_of_two_samplers_notices_and_stops(light: LightSamplers, name: str) -> None:
    """Somebody removed the lock file: the epoch is the fence."""
    older = light.one(name, interval_seconds=0.01)
    os.unlink(side_path(name, LOCK_SUFFIX))
    newer = light.one(name, interval_seconds=0.01)
    assert newer.taken_over
    wait_until(lambda: not process_lives(older.pid))
    with attach(name) as reader:
        status = reader.status()
        assert (status.state, status.epoch, status.pid) == ("live", newer.epoch, newer.pid)
    assert process_lives(newer.pid)
    assert os.path.exists(side_path(name, LOCK_SUFFIX)), "the newer one's lock file is left alone"
    end(newer.pid, signal.SIGTERM)
    assert not os.path.exists(side_path(name, LOCK_SUFFIX))


def test_the_older_of_two_samplers_with_different_layouts_stops_too(light: LightSamplers, name: str) -> None:
    """It writes to a segment that has no name any more; readers of it must not believe it is alive."""
    older = light.one(name, interval_seconds=0.01, metric_count=3)
    with attach(name, on_stale="never") as reader:
        os.unlink(side_path(name, LOCK_SUFFIX))
        newer = light.one(name, interval_seconds=0.01, metric_count=5)
        assert not newer.taken_over
        wait_until(lambda: not process_lives(older.pid))
        wait_until(lambda: reader.status().epoch == newer.epoch)
        assert reader.status().state == "live"


def test_a_sampler_whose_object_was_removed_by_hand_ends(light: LightSamplers, name: str) -> None:
    started = light.one(name, interval_seconds=0.01)
    with attach(name) as reader:
        os.unlink(names.object_path(name))
        wait_until(lambda: not process_lives(started.pid))
        assert reader.status().state == "stopped"
        following = light.one(name)
        wait_until(lambda: reader.status().epoch == following.epoch)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to somebody else")
@pytest.mark.parametrize("suffix", ["", names.NEW_SUFFIX])
def test_a_name_that_somebody_else_has_taken_is_an_error_that_says_so(name: str, suffix: str) -> None:
    """In a directory as sticky as /dev/shm nobody can replace it."""
    path = f"{names.SHM_DIRECTORY}/{names.PREFIX}.{NOBODY}.{name}{suffix}"
    with open(path, "w"):
        pass
    code = f"""
import encodings.ascii, json, logging, os, sys  # before the change of user
from shm_monitor.errors import UntrustedError
from tests.support.publishing import Bench
from tests.support.surroundings import remove_files
from tests.support.surroundings import remove_files
os.setuid({NOBODY})
try:
    bench = Bench(sys.argv[1])
    try:
        bench.publish()
    finally:
        bench.close()
except UntrustedError as error:
    print(error.path, error.owner_uid)
    print([entry for entry in os.listdir("/dev/shm") if entry.endswith("~new") and f".{{os.getuid()}}." in entry])
"""
    try:
        said, left = output_of(code, name).splitlines()
        assert said == f"{path} 0"
        assert left == ("[]" if not suffix else f"['{os.path.basename(path)}']")
    finally:
        remove_files(name)


def test_a_directory_in_the_way_is_an_error_that_says_so(name: str) -> None:
    os.mkdir(names.object_path(name))
    lock = Lock(name)
    try:
        bench = Bench(name)
        with pytest.raises(UntrustedError, match="cannot be replaced"):
            bench.publish(Level.OK)
        bench.close()
    finally:
        lock.release()
        os.rmdir(names.object_path(name))


def process_lives(pid: int) -> bool:
    """Say whether *pid* has not ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
