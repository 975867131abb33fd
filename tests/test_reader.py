"""What a worker holds: answers while a sampler lives and while none does, in every kind of process."""

from __future__ import annotations

import ctypes
import gc
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shm_monitor import names
from shm_monitor.errors import ConfigError, MonitorError, NotFoundError, StaleError, UnknownLimitError
from shm_monitor.reader import Reader, attach
from shm_monitor.schema import Level
from tests.children import PYTHON, output_of
from tests.conftest import child_environment
from tests.light_sampler import LightSamplers, end, wait_until
from tests.reader_process import answers_of

if TYPE_CHECKING:
    from shm_monitor.attachment import OnStale
    from tests.conftest import Bench

PRESSED = {"pressed": ("cpu",)}
ANSWERS = [("never", False), ("always", True), ("hold", True), ("raise", None)]


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings that were logged."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("by_kernel", [True, False], ids=["kernel", "clock"])
@pytest.mark.parametrize(("on_stale", "answer"), ANSWERS)
def test_on_stale_answers_for_a_dead_sampler(
    light: LightSamplers, name: str, by_kernel: bool, on_stale: OnStale, answer: bool | None
) -> None:
    """The dead sampler had pressed; with the clock alone the death shows after stale_after."""
    started = light.one(name, by_kernel=by_kernel, stale_after_seconds=0.3, **PRESSED)
    with attach(name, watch=["cpu"], on_stale=on_stale) as reader:
        assert reader.should_prune() is True
        assert reader.level() == Level.PRUNE
        end(started.pid)
        if not by_kernel:
            assert reader.should_prune() is True, "for the clock it is still alive"
            wait_until(lambda: reader.status().state == "stale")
        if answer is None:
            with pytest.raises(StaleError, match="stale") as caught:
                reader.should_prune()
            assert caught.value.name == name
            assert 0.0 <= caught.value.age_seconds < 60.0
        else:
            assert reader.should_prune() is answer
            assert (reader.level() >= Level.PRUNE) is answer
        light.one(name, by_kernel=by_kernel, pressed=())
        assert reader.should_prune() is False, "alive again, and calm"


@pytest.mark.parametrize(("on_stale", "answer"), ANSWERS)
def test_on_stale_answers_for_a_stopped_sampler(
    light: LightSamplers, name: str, on_stale: OnStale, answer: bool | None
) -> None:
    started = light.one(name, **PRESSED)
    with attach(name, watch=["cpu"], on_stale=on_stale) as reader:
        end(started.pid, signal.SIGTERM)
        if answer is None:
            with pytest.raises(StaleError, match="stopped"):
                reader.should_prune()
        else:
            assert reader.should_prune() is answer


@pytest.mark.parametrize(("on_stale", "answer"), [("never", False), ("always", True), ("hold", False), ("raise", None)])
def test_on_stale_answers_while_no_sampler_was_ever_there(name: str, on_stale: OnStale, answer: bool | None) -> None:
    with attach(name, timeout=0.0, required=False, on_stale=on_stale) as reader:
        if answer is None:
            with pytest.raises(StaleError, match="absent"):
                reader.should_prune()
        else:
            assert reader.should_prune() is answer
        assert reader.status().state == "absent"
        assert reader.status().sequence is None


def test_a_calm_dead_sampler_held_is_calm(light: LightSamplers, name: str) -> None:
    started = light.one(name, pressed=())
    with attach(name, on_stale="hold") as reader:
        end(started.pid)
        assert reader.should_prune() is False


def test_every_kind_of_on_stale_is_checked(name: str) -> None:
    with pytest.raises(ConfigError, match="never, always, hold, raise"):
        attach(name, on_stale="sometimes")  # type: ignore[arg-type]


def test_one_warning_per_death(light: LightSamplers, name: str, caplog: pytest.LogCaptureFixture) -> None:
    with attach(name, timeout=0.0, required=False) as reader:
        for deaths in range(1, 4):
            for _ in range(100):
                reader.should_prune()
            assert len(warnings_in(caplog)) == deaths
            started = light.one(name)
            wait_until(lambda: reader.status().state == "live")
            reader.should_prune()
            end(started.pid)
        reader.should_prune()
        assert [("is absent" in line, "is stale" in line) for line in warnings_in(caplog)] == [
            (True, False),
            *[(False, True)] * 3,
        ]
        assert all("shm-monitor status" in line for line in warnings_in(caplog))


def test_a_reader_that_needs_no_sampler_finds_the_one_that_comes(light: LightSamplers, name: str) -> None:
    """It looks at most once a second, from inside the slow path."""
    with attach(name, timeout=0.0, required=False, watch=["cpu", "memory"]) as reader:
        assert reader.should_prune() is False
        light.one(name, **PRESSED)
        wait_until(reader.should_prune)
        assert reader.snapshot().sequence > 0


def test_a_reader_without_a_sampler_looks_at_most_once_a_second(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from shm_monitor import attachment

    looks: list[str] = []

    def counted(wanted: str) -> None:
        looks.append(wanted)
        raise NotFoundError(wanted, "/dev/shm/nothing")

    with attach(name, timeout=0.0, required=False) as reader:
        monkeypatch.setattr(attachment, "View", counted)
        now = [1000.0]
        monkeypatch.setattr("shm_monitor.attachment.time.monotonic", lambda: now[0])
        for _ in range(50):
            now[0] += 0.1
            reader.should_prune()
        assert 4 <= len(looks) <= 6


def test_an_unknown_limit_is_named_with_those_that_exist(bench: Bench) -> None:
    with pytest.raises(UnknownLimitError, match="memory, cpu"):
        attach(bench.name, watch=["gpu-memory:7"])


def test_an_unknown_limit_never_disturbs_a_reader_that_does_not_require_a_sampler(bench: Bench) -> None:
    with attach(bench.name, watch=["gpu-memory:7"], required=False) as reader:
        assert reader.should_prune() is False
        bench.publish(Level.PRUNE)
        assert reader.should_prune() is True, "it answers by the overall verdict"


def test_several_limits_are_asked_together(bench: Bench) -> None:
    with attach(bench.name, watch=["memory", "cpu"]) as both, attach(bench.name, watch="cpu") as cpu:
        assert (both.should_prune(), cpu.should_prune()) == (False, False)
        bench.publish(Level.PRUNE, Level.OK)
        assert (both.should_prune(), cpu.should_prune()) == (True, False)
        bench.publish(Level.OK, Level.CRITICAL)
        assert (both.level(), cpu.level()) == (Level.CRITICAL, Level.CRITICAL)


def test_close_lets_go_and_the_reader_answers_as_if_its_sampler_were_gone(light: LightSamplers, name: str) -> None:
    light.one(name)
    reader = attach(name, on_stale="always")
    ask = reader.should_prune
    snapshot = reader.snapshot()
    reader.close()
    reader.close()
    assert ask() is True
    assert reader.status().state == "absent"
    assert snapshot.sequence > 0, "what was handed out stays"
    with pytest.raises(NotFoundError, match="closed"):
        reader.snapshot()
    gc.collect()
    assert names.object_name(name) not in Path("/proc/self/maps").read_text()


def test_a_flag_address_stays_mapped_after_close_while_the_reader_exists(light: LightSamplers, name: str) -> None:
    """A compiled loop in another thread may still be asking."""
    light.one(name)
    reader = attach(name)
    address = reader.flag_address
    reader.close()
    assert ctypes.c_uint8.from_address(address).value == 0


def test_closing_while_other_threads_ask_crashes_nobody(light: LightSamplers, name: str) -> None:
    light.one(name, limit_count=5, pressed=())
    watch = ["memory", "cpu", "network", "gpu:0", "gpu-memory:0"]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):
            reader = attach(name, watch=watch)
            stop = threading.Event()
            threads = [threading.Thread(target=ask_until, args=(reader, stop)) for _ in range(4)]
            for thread in threads:
                thread.start()
            reader.close()
            stop.set()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(before)


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
from shm_monitor.reader import attach
from tests.reader_process import answers_of
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
from shm_monitor.reader import attach
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


STRACE = shutil.which("strace")


def may_trace() -> bool:
    """Say whether strace works here (ptrace may be forbidden in a container)."""
    if STRACE is None:
        return False
    return subprocess.run([STRACE, "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_trace(), reason="strace is not installed, or ptrace not permitted")
def test_asking_makes_no_system_call(light: LightSamplers, name: str, tmp_path: Path) -> None:
    """10^5 questions, between two calls that strace shows."""
    light.one(name, interval_seconds=0.05)
    if not light.marks_death:
        pytest.skip("without the kernel's mark a question asks the clock")
    code = """
import os, sys
from shm_monitor.reader import attach
ask = attach(sys.argv[1]).should_prune
both = attach(sys.argv[1], watch=["memory", "cpu"]).should_prune
ask(); both()
os.path.exists("/before")
for _ in range(100_000):
    ask()
for _ in range(1000):
    both()
os.path.exists("/after")
"""
    trace = tmp_path / "trace"
    command = [str(STRACE), "-f", "-o", str(trace), *PYTHON, "-c", code, name]
    subprocess.run(command, env=child_environment(), check=True, timeout=60)
    lines = trace.read_text().splitlines()
    before = next(at for at, line in enumerate(lines) if '"/before"' in line)
    after = next(at for at, line in enumerate(lines) if '"/after"' in line)
    assert lines[before + 1 : after] == []


def test_a_compiled_loop_sees_another_process_press(light: LightSamplers, name: str) -> None:
    """The load is atomic: LLVM would otherwise read it once and spin for ever."""
    light.one(name, pressed=())
    code = """
import sys, threading, time
from numba import njit
from shm_monitor.kernels import should_prune_at
from shm_monitor.reader import attach

@njit(nogil=True)
def spin(address):
    turns = 0
    while not should_prune_at(address):
        turns += 1
    return turns

reader = attach(sys.argv[1], watch=["cpu"])
address = reader.flag_address
print(should_prune_at(address), flush=True)
print(spin(address) > 0, reader.should_prune())
"""
    child = subprocess.Popen(
        [*PYTHON, "-c", code, name], env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "False\n"
        time.sleep(0.5)
        end(attach(name).status().pid or 0)
        time.sleep(0.1)
        assert child.poll() is None, "a dead sampler presses nothing"
        light.one(name, pressed=("cpu",))
        assert child.stdout.readline() == "True True\n"
        assert child.wait(10) == 0
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


def test_a_status_tells_everything(light: LightSamplers, name: str) -> None:
    started = light.one(name, interval_seconds=0.01)
    with attach(name) as reader:
        status = reader.status()
        assert (status.name, status.state, status.detail) == (name, "live", "")
        assert (status.pid, status.epoch, status.restarts) == (started.pid, started.epoch, 0)
        assert status.interval_seconds == 0.01
        assert status.age_seconds is not None
        assert 0.0 <= status.age_seconds < 5.0
        assert set(status.collectors) == {"cpu", "memory"}
        assert reader.age() >= 0.0


def test_a_reader_with_a_clock_sees_a_sampler_stop_and_go_on(light: LightSamplers, name: str) -> None:
    """SIGSTOP without a supervisor: hung, then alive again, and the next hang is another one."""
    started = light.one(name, by_kernel=False, stale_after_seconds=0.3)
    with attach(name, on_stale="always") as reader:
        for _ in range(2):
            assert reader.should_prune() is False
            os.kill(started.pid, signal.SIGSTOP)
            wait_until(reader.should_prune)
            os.kill(started.pid, signal.SIGCONT)
            wait_until(lambda: not reader.should_prune())


def test_nothing_a_reader_does_depends_on_the_wall_clock(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    with attach(bench.name) as reader:
        assert reader.should_prune() is False
        assert reader.status().state == "live"


def make_and_drop(name: str) -> None:
    """Use a reader for everything and drop it."""
    reader = attach(name)
    reader.snapshot()
    reader.should_prune()


def test_dropped_readers_leave_no_mapping(bench: Bench) -> None:
    """The question and its reader know each other, so that the collector must come by."""
    for _ in range(50):
        make_and_drop(bench.name)
    gc.collect()
    with open("/proc/self/maps") as file:
        assert file.read().count(names.object_name(bench.name)) == 1, "the publisher's own"
