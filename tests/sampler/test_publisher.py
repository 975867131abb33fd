"""The writing side of the segment: what a sample leaves in memory, in which order, and how a publisher ends."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from shm_monitor.errors import FencedError
from shm_monitor.schema import Level
from shm_monitor.segment import layout, names
from shm_monitor.segment.address import address_of
from shm_monitor.segment.flags import DIED, PRESSED, TID_MASK, flag_word, level_of, verdict_word
from shm_monitor.segment.layout import LIVE, NEEDS_NO_CLOCK, NO_BEAT, STOPPED
from shm_monitor.segment.view import View
from shm_monitor.worker.attaching import attach
from tests.support.children import PYTHON, output_of, run_python
from tests.support.publishing import Bench, small_schema
from tests.support.surroundings import child_environment, files_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.light_sampler import LightSamplers


def test_nobody_can_attach_before_the_first_sample(make_bench: Callable[..., Bench], name: str) -> None:
    bench = make_bench(name)
    assert not os.path.exists(names.object_path(name))
    bench.publish()
    view = View(name)
    assert view.sample().number == 1
    assert view.word(layout.STATE_OFFSET) == LIVE
    assert view.word(layout.INCARNATION_OFFSET) == 1


def test_the_header_says_who_publishes(bench: Bench) -> None:
    header = View(bench.name).header
    assert header.pid == os.getpid()
    with open("/proc/self/stat") as file:
        assert header.pid_start_ticks == int(file.read().rpartition(")")[2].split()[19])
    assert abs(header.created_realtime_ns - time.time_ns()) < 60e9
    assert (header.interval_ns, header.stale_after_ns) == (10**9, 3 * 10**9)
    with open("/proc/sys/kernel/random/boot_id") as file:
        assert header.boot_id.hex() == file.read().strip().replace("-", "")


def test_the_ring_keeps_the_newest_samples_each_in_its_slot(bench: Bench) -> None:
    for number in range(2, 21):
        bench.publish(value=float(number))
    view = View(bench.name)
    assert [sample.number for sample in view.samples()] == list(range(13, 21))
    for number in range(13, 21):
        sample = view.sample_at(number)
        assert sample is not None
        assert np.frombuffer(sample.data, "<f8", 1, view.slot.values)[0] == number
        assert bench.publisher.ring["number"][number % 8] == number
    assert view.sample_at(12) is None
    assert view.sample_at(21) is None


def test_samples_after_a_number_are_those_that_follow(bench: Bench) -> None:
    for _ in range(5):
        bench.publish()
    view = View(bench.name)
    assert [sample.number for sample in view.samples(after=3)] == [4, 5, 6]
    assert list(view.samples(after=6)) == []
    assert list(view.samples(after=2**63)) == []


def test_flags_bear_level_and_thread(bench: Bench) -> None:
    bench.publish(Level.CRITICAL, Level.WARN)
    words = [View(bench.name).flag(index) for index in range(4)]
    assert [level_of(word) for word in words] == [Level.CRITICAL, Level.CRITICAL, Level.WARN, Level.OK]
    assert [bool(word & PRESSED) for word in words] == [True, True, False, False]
    own = threading.get_native_id()
    assert [word & TID_MASK for word in words] == [own, own, own, 0]
    assert words[0] == flag_word(verdict_word(Level.CRITICAL, 0), own)


def test_a_flag_that_does_not_change_is_not_stored_again(bench: Bench) -> None:
    """Each store would wake whoever waits for it."""
    offset = layout.FLAGS_OFFSET
    bench.store(offset, 4711)
    bench.publish()
    assert View(bench.name).flag(0) == 4711
    bench.publish(Level.PRUNE)
    assert View(bench.name).flag(0) & PRESSED


@pytest.mark.processes
def test_live_memory_is_never_half_written(make_bench: Callable[..., Bench], name: str) -> None:
    """Struct.pack_into would zero the word first."""
    bench = make_bench(name)
    bench.publish()
    code = """
import sys
from shm_monitor.segment.view import View
view = View(sys.argv[1])
seen = set()
for _ in range(500_000):
    seen.add(view.word(0x1008))
assert len(seen) > 1
print(*seen - {1, 2**60 + 1})
"""
    bench.publisher.beat(1)
    child = subprocess.Popen([*PYTHON, "-c", code, name], env=child_environment(), stdout=subprocess.PIPE, text=True)
    while child.poll() is None:
        for _ in range(10_000):
            bench.publisher.beat(1)
            bench.publisher.beat(2**60 + 1)
    assert child.communicate()[0].strip() == ""


def test_a_fenced_publisher_stops_before_it_writes(bench: Bench) -> None:
    """Another sampler has stored its epoch: not one byte more."""
    view = View(bench.name)
    bench.store(layout.EPOCH_OFFSET, 4712)
    before = bytes(view.memory)
    with pytest.raises(FencedError, match="another sampler"):
        bench.publish(Level.PRUNE)
    assert bytes(view.memory) == before
    bench.publisher.close()
    assert bytes(view.memory) == before
    assert os.path.exists(names.object_path(bench.name)), "the name is the other's"


def test_a_publisher_whose_object_was_removed_stops(bench: Bench) -> None:
    """Else it would publish for ever where nobody new can attach; a supervisor starts another one."""
    os.unlink(names.object_path(bench.name))
    with pytest.raises(FencedError, match="was removed"):
        bench.publish()


def test_close_says_stopped_to_everybody_and_removes_the_name(bench: Bench) -> None:
    bench.publish(Level.PRUNE)
    view = View(bench.name)
    bench.publisher.close()

    assert view.word(layout.STATE_OFFSET) == STOPPED
    assert view.word(layout.BEAT_OFFSET) == NO_BEAT
    assert [bool(view.flag(index) & DIED) for index in range(4)] == [True, True, True, False]
    assert [view.flag(index) & TID_MASK for index in range(3)] == [0, 0, 0]
    assert level_of(view.flag(0)) == Level.PRUNE, "on_stale='hold' answers with the last verdict"
    assert not os.path.exists(names.object_path(bench.name))


def test_close_unmaps(make_bench: Callable[..., Bench], name: str) -> None:
    bench = make_bench(name)
    bench.publish()
    with open("/proc/self/maps") as file:
        assert names.object_name(name) in file.read()
    bench.close()
    del bench.publisher
    with open("/proc/self/maps") as file:
        assert names.object_name(name) not in file.read()


def test_a_publisher_that_never_published_leaves_nothing(make_bench: Callable[..., Bench], name: str) -> None:
    bench = make_bench(name)
    assert os.path.exists(names.object_path(name) + names.NEW_SUFFIX)
    bench.close()
    assert files_of(name) == []


@pytest.mark.processes
def test_a_forked_child_of_the_sampler_changes_nothing_by_ending(name: str) -> None:
    """Neither by an explicit close nor by the finalizers of its interpreter."""
    code = """
import os, sys
from shm_monitor.worker.attaching import attach
from tests.support.publishing import Bench
bench = Bench(sys.argv[1], by_kernel=True)
bench.publish()
for explicit in (True, False):
    if (child := os.fork()) == 0:
        if explicit:
            bench.close()
        sys.exit(0)
    os.waitpid(child, 0)
    bench.publish()
with attach(sys.argv[1]) as reader:
    print(reader.status().state, reader.snapshot().sequence, reader.should_prune(), flush=True)
if os.fork() == 0:
    bench.close()
    os._exit(0)
os.wait()
os.kill(os.getpid(), 9)
"""
    done = run_python(code, name)
    assert done.stdout.split() == ["live", "3", "False"], done.stderr
    with attach(name, on_stale="always") as reader:
        assert reader.status().state == "stale", "the list of the parent still stood"
        assert reader.should_prune() is True


@pytest.mark.processes
def test_a_sampler_that_ends_without_a_close_is_marked_dead(name: str) -> None:
    """Its flags must still be mapped when the interpreter has cleaned up."""
    code = """
import sys
from tests.support.publishing import Bench
bench = Bench(sys.argv[1], by_kernel=True)
bench.publish()
"""
    output_of(code, name)
    with attach(name, on_stale="always") as reader:
        assert reader.should_prune() is True
        assert reader.status().state == "stale"


@pytest.mark.processes
@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), 9)", "bench.close(); os._exit(0)"], ids=["killed", "closed"])
def test_the_flag_of_a_worker_ends_like_any_other(name: str, ending: str) -> None:
    """Of the last of 1,024 workers, too; one that nobody has stays as it is."""
    code = f"""
import os, sys, threading
from shm_monitor.segment import layout
from tests.support.publishing import Bench
bench = Bench(sys.argv[1], by_kernel=True)
bench.publish()
last = layout.FLAGS_OFFSET + (layout.FLAG_COUNT - 1) * layout.FLAG_STRIDE
bench.store(last, 3 << 32 | threading.get_native_id())
print("ready", flush=True)
sys.stdin.readline()
{ending}
"""
    child = subprocess.Popen(
        [*PYTHON, "-c", code, name], env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        view = View(name)
        assert view.flag(layout.FLAG_COUNT - 1) & DIED == 0
        child.communicate("\n")
    assert view.flag(layout.FLAG_COUNT - 1) == 3 << 32 | DIED
    assert view.flag(layout.FLAG_COUNT - 2) == 0


@pytest.mark.processes
def test_no_resource_tracker_hears_of_the_segment(name: str) -> None:
    """It would unlink the object when the sampler is killed, and print at its end."""
    code = """
import os, sys
from multiprocessing import resource_tracker
from tests.support.publishing import Bench
bench = Bench(sys.argv[1])
bench.publish()
assert resource_tracker._resource_tracker._pid is None
print(len(os.listdir("/proc/self/task")), flush=True)
os.kill(os.getpid(), 9)
"""
    done = run_python(code, name)
    assert done.stdout.split() == ["1"]
    assert done.stderr == ""
    time.sleep(0.1)
    assert os.path.exists(names.object_path(name))


@pytest.mark.processes
def test_other_software_can_attach_by_name(bench: Bench) -> None:
    code = """
import sys
from multiprocessing.shared_memory import SharedMemory
from multiprocessing import resource_tracker
resource_tracker.register = lambda *_: None
shared = SharedMemory(sys.argv[1])
print(bytes(shared.buf[:6]).decode())
shared.close()
"""
    assert output_of(code, names.object_name(bench.name)) == "SHMMON"


@pytest.mark.parametrize("by_kernel", [True, False])
def test_capabilities_say_what_was_asked(light: LightSamplers, name: str, by_kernel: bool) -> None:
    light.one(name, by_kernel=by_kernel)
    assert View(name).header.capabilities == (NEEDS_NO_CLOCK if by_kernel and light.by_kernel else 0)


def test_collectors_are_told_beside_the_samples(bench: Bench) -> None:
    now = time.monotonic_ns()
    bench.publisher.tell_collector(1, last_ok_mono_ns=now - 5 * 10**9, error_count=7)
    with attach(bench.name, timeout=0.0) as reader:
        cpu, memory = reader.status().collectors["cpu"], reader.status().collectors["memory"]
        assert cpu.last_ok_age_seconds is None
        assert memory.errors_count == 7
        assert memory.last_ok_age_seconds is not None
        assert 5.0 <= memory.last_ok_age_seconds < 60.0


def test_an_address_is_where_the_byte_is() -> None:
    data = bytearray(b"abc")
    address = address_of(memoryview(data))
    assert ctypes.c_char.from_address(address + 1).value == b"b"


def test_a_schema_with_room_for_every_limit(make_bench: Callable[..., Bench], name: str) -> None:
    bench = make_bench(name, small_schema(200, 5), slot_count=8)
    bench.publish(*[Level.PRUNE] * 5)
    with attach(name, watch=["gpu"]) as reader:
        assert reader.should_prune() is True
        assert reader.status().state == "live"
