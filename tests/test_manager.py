"""ResourceManager: one sampler however many managers, tied to the life of the process that started it."""

from __future__ import annotations

import asyncio
import os
import pickle
import select
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shm_monitor.errors import OtherConfigError, UnknownLimitError
from shm_monitor.manager import ResourceManager
from shm_monitor.schema import Level
from shm_monitor.segment import layout
from shm_monitor.worker.attaching import attach
from shm_monitor.worker.reader import Reader
from tests.support.children import PYTHON, output_of, run_python
from tests.support.light_sampler import LightSamplers, end
from tests.support.real_sampler import fast
from tests.support.surroundings import child_environment, files_of, remove_files
from tests.support.waiting import PATIENCE_SECONDS, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.processes

MANAGE = """
import os, sys, time
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.manager import ResourceManager
from shm_monitor.worker.attaching import attach
config = ResourceConfig(name=sys.argv[1], check_interval=0.05, observation_period=1.0, history_seconds=10.0)
"""


@pytest.fixture(autouse=True)
def _nothing_left(name: str) -> Iterator[None]:
    """Whatever a test does, no file of its name is left (but what a killed sampler leaves, which it removes)."""
    yield
    assert files_of(name) == []


def test_a_manager_starts_answers_and_stops_what_it_started(name: str) -> None:
    with ResourceManager(fast(name)) as manager:
        assert manager.owns_sampler
        assert manager.name == name
        assert manager.check_interval == 0.05
        assert manager.should_prune() is False
        assert manager.level() in {Level.OK, Level.WARN}
        assert manager.status().state == "live"
        assert manager.reader.snapshot().sequence > 0
        pid = manager.status().pid or 0
    manager.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert manager.should_prune() is False


def test_a_second_manager_is_a_reader_and_stops_nothing(light: LightSamplers, name: str) -> None:
    started = light.one(name)
    with ResourceManager(fast(name), watch="cpu") as manager:
        assert not manager.owns_sampler
        assert manager.should_prune() is True
        assert manager.status().pid == started.pid
    with attach(name, timeout=0.0) as reader:
        assert reader.status().state == "live"
    end(started.pid, signal.SIGTERM)


def test_settings_that_are_not_in_force_are_listed_once_or_refused(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A second manager of the name that asks for a limit and another interval is not obeyed, and is told so."""
    other = fast(name, max_cpu_usage_percent=50.0, allow_injection=True)
    with ResourceManager(fast(name)) as first:
        with ResourceManager(fast(name)), ResourceManager(other) as second:
            assert not second.owns_sampler
        with pytest.raises(OtherConfigError, match=r"max_cpu_usage_percent=50\.0 was asked for, None is") as caught:
            ResourceManager(other, strict=True)
        with ResourceManager(fast(name), strict=True) as third:
            assert third.should_prune() is False
        assert first.status().state == "live"
    warnings = [record.getMessage() for record in caplog.records if record.name == "shm_monitor"]

    assert caught.value.missing == {"max_cpu_usage_percent": [50.0, None], "allow_injection": [True, False]}
    assert [line for line in warnings if "other settings" in line] == [str(caught.value)]


def test_what_a_killed_sampler_left_is_taken_over(light: LightSamplers, name: str) -> None:
    """The layouts differ here: what counts is that nobody ends with the dead one."""
    end(light.one(name).pid)
    with ResourceManager(fast(name)) as manager:
        assert manager.owns_sampler
        assert manager.status().state == "live"


def test_two_managers_racing_end_with_one_sampler_and_both_working(name: str) -> None:
    code = (
        MANAGE
        + """
manager = ResourceManager(config)
print(manager.owns_sampler, manager.status().pid, manager.status().state, manager.should_prune(), flush=True)
sys.stdin.read()
manager.close()
"""
    )
    children = [
        subprocess.Popen(
            [*PYTHON, "-c", code, name],
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    try:
        said = [child.stdout.readline().split() for child in children if child.stdout is not None]
        assert sorted(one[0] for one in said) == ["False", "False", "True"]
        assert len({one[1] for one in said}) == 1
        assert {(one[2], one[3]) for one in said} == {("live", "False")}
    finally:
        for child in children:  # the one with the sampler may end first: the others only read
            child.communicate("", timeout=30)


@pytest.mark.parametrize(
    ("workers", "phase"),
    [
        pytest.param("none", "runs", id="alone", marks=pytest.mark.slow),
        pytest.param("forked", "runs", id="with forked workers that live on"),
        pytest.param("forked", "pauses", id="in the pause before a restart", marks=pytest.mark.slow),
        pytest.param("forked", "starts", id="while its sampler starts", marks=pytest.mark.slow),
    ],
)
def test_the_death_of_the_owner_ends_its_sampler(name: str, workers: str, phase: str) -> None:
    """SIGKILL: no handler, no finalizer; a forked worker has every descriptor of its parent."""
    code = (
        MANAGE
        + """
import subprocess, threading
from shm_monitor.supervision import supervisor
if sys.argv[3] == "starts":
    kept = []  # a manager that nobody keeps closes its sampler
    threading.Thread(target=lambda: kept.append(ResourceManager(config)), daemon=True).start()
    time.sleep(0.05)
else:
    manager = ResourceManager(config)
    if sys.argv[3] == "pauses":
        os.kill(manager.status().pid, 9)
        time.sleep(0.5)
if sys.argv[2] == "forked":
    for _ in range(2):
        if os.fork() == 0:
            time.sleep(300)
            os._exit(0)
found = ""
while not found:  # the brackets keep the command line of this very script from being one that is found
    command = ["pgrep", "-P", str(os.getpid()), "-f", "[-]m shm_monitor.sampler"]
    found = subprocess.run(command, capture_output=True, text=True).stdout
workers = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True)
print(found.split()[0], *workers.stdout.split(), flush=True)
time.sleep(300)
"""
    )
    owner = subprocess.Popen(
        [*PYTHON, "-c", code, name, workers, phase],
        env=child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert owner.stdout is not None
    sampler, *children = map(int, owner.stdout.readline().split())
    fd = os.pidfd_open(sampler)
    try:
        owner.kill()
        owner.wait()
        assert select.select([fd], [], [], PATIENCE_SECONDS)[0], "it lives on"
    finally:
        os.close(fd)
        owner.stdout.close()
        for child in {*children} - {sampler}:
            with_suppressed_kill(child)
    if phase != "runs":
        remove_files(name)


def with_suppressed_kill(pid: int) -> None:
    """Kill *pid* if it is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_in_a_forked_child_it_is_a_reader_and_stops_nothing(name: str) -> None:
    code = (
        MANAGE
        + """
manager = ResourceManager(config)
for ending in ("close", "exit", "drop"):
    child = os.fork()
    if child == 0:
        good = manager.should_prune() is False and manager.status().state == "live" and not manager.owns_sampler
        if ending == "close":
            manager.close()
        elif ending == "drop":
            del manager
        if not good:
            os._exit(1)
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0, ending
    assert manager.status().state == "live", ending
print(manager.owns_sampler)
manager.close()
"""
    )
    assert output_of(code, name) == "True"


@pytest.mark.parametrize(
    "ending",
    [
        "",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("del manager", "sys.exit()", "manager.close()")),
    ],
)
def test_the_end_of_the_program_stops_the_sampler(name: str, ending: str) -> None:
    done = run_python(
        f"{MANAGE}\nmanager = ResourceManager(config)\nprint(manager.status().pid, flush=True)\n{ending}", name
    )
    assert done.returncode == 0, done.stderr
    wait_until(lambda: files_of(name) == [])
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_an_unknown_limit_leaves_no_sampler_behind(name: str) -> None:
    with pytest.raises(UnknownLimitError):
        ResourceManager(fast(name), watch=["gpu-memory:77"])
    assert files_of(name) == []


def test_a_disabled_manager_starts_nothing_and_never_asks_for_anything(name: str) -> None:
    with ResourceManager(fast(name, enabled=False, on_stale="always")) as manager:
        assert not manager.owns_sampler
        assert manager.should_prune() is False
        assert manager.level() == Level.OK
        assert files_of(name) == []


@pytest.mark.slow
def test_the_environment_can_force_the_clock(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHM_MONITOR_FORCE_CLOCK", "1")
    with ResourceManager(fast(name, stale_after=0.5, on_stale="always")) as manager:
        assert manager.reader.view().header.capabilities & layout.NEEDS_NO_CLOCK == 0
        assert manager.should_prune() is False
        os.kill(manager.status().pid or 0, signal.SIGSTOP)
        wait_until(manager.should_prune)
        wait_until(lambda: not manager.should_prune())


def test_an_owner_without_standard_streams_has_a_sampler_all_the_same(name: str) -> None:
    """As a daemon that has closed them."""
    code = (
        MANAGE
        + """
result = os.dup(1)
for fd in range(3):
    os.close(fd)
with ResourceManager(config) as manager:
    os.write(result, manager.status().state.encode())
"""
    )
    assert output_of(code, name) == "live"


def test_a_manager_is_a_reader_and_answers_as_any_other(light: LightSamplers, name: str) -> None:
    started = light.one(name, interval_seconds=3600.0, stale_after_seconds=7200.0)  # one sample, which both see
    with ResourceManager(fast(name), watch="cpu") as manager, attach(name, watch="cpu") as reader:
        assert isinstance(manager, Reader)
        assert manager.reader is manager
        assert manager.snapshot().sequence == reader.snapshot().sequence
        assert manager.explain() == reader.explain()
        assert (manager.should_prune(), manager.reasons()) == (reader.should_prune(), reader.reasons())
        assert manager.headroom() == reader.headroom()
        assert manager.wait(0.01) is False
        assert asyncio.run(manager.changed(0.01)) is False
        unpickled = pickle.loads(pickle.dumps(manager))
        assert (type(unpickled), unpickled.name) == (Reader, name)
        unpickled.close()
    end(started.pid, signal.SIGTERM)


def test_a_disabled_manager_says_that_there_is_no_sampler(name: str) -> None:
    with ResourceManager(fast(name, enabled=False)) as manager:
        assert manager.explain().no_sampler
        assert manager.snapshot().stale
        assert manager.shed_fraction() == 0.0
        assert manager.history().sequences == []


@pytest.mark.parametrize(
    ("code", "period"),
    [("ResourceManager().config", 25.0), ("ResourceManager(ResourceConfig(enabled=False)).config", 10.0)],
)
def test_only_a_manager_without_a_configuration_reads_the_environment(tmp_path: Path, code: str, period: float) -> None:
    """So does load(); the constructor obeys neither environment nor file."""
    (tmp_path / ".env").write_text("OBSERVATION_PERIOD=25\n")
    script = f"from shm_monitor import ResourceConfig, ResourceManager; print({code}.observation_period)"
    done = subprocess.run(
        [*PYTHON, "-c", script],
        cwd=tmp_path,
        env=child_environment(ENABLED="false"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) == period


def default_name() -> str:
    with attach(timeout=0.0, required=False) as reader:
        return reader.name


def disabled(name: str) -> ResourceManager:
    return ResourceManager(fast(name, enabled=False))


def test_a_reader_without_a_name_asks_the_sampler_of_the_newest_open_manager(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also over what the environment says, which is as it was when the last of them is closed."""
    monkeypatch.setenv("SHM_MONITOR_NAME", "inherited")
    first, second, third = disabled(name), disabled("second"), disabled("third")
    assert default_name() == "third"
    third.close()
    assert default_name() == "second"
    first.close()
    assert default_name() == "second"
    second.close()
    assert default_name() == "inherited"


def test_a_manager_that_is_dropped_is_the_default_no_more(name: str) -> None:
    manager = disabled(name)
    assert default_name() == name
    del manager
    assert default_name() == "default"


def test_what_is_written_into_the_environment_after_a_manager_was_made_stays(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHM_MONITOR_NAME", "inherited")
    with disabled(name):
        monkeypatch.setenv("SHM_MONITOR_NAME", "written")
        assert default_name() == "written"
    assert default_name() == "written"


def test_a_forked_child_keeps_the_default_and_closes_only_its_own(name: str) -> None:
    with disabled(name) as manager:
        child = os.fork()
        if child == 0:
            before = default_name()
            manager.close()
            os._exit((before, default_name()) != (name, "default"))
        assert os.waitpid(child, 0)[1] == 0
        assert default_name() == name


ASK_IN_CHILDREN = """
import multiprocessing, subprocess, sys
import shm_monitor as sm

def asked(number):
    return sm.attach().name, sm.throttle([])._reader.name, sm.Governor(8)._reader.name

if __name__ == "__main__":
    with sm.ResourceManager(sm.ResourceConfig(name=sys.argv[1], check_interval=0.2, compile="never")):
        print(*asked(0))
        for method in ("fork", "spawn", "forkserver"):
            with multiprocessing.get_context(method).Pool(1) as pool:
                print(*pool.apply(asked, (0,)))
        ask = "import shm_monitor; print(shm_monitor.attach().name)"
        print(subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True).stdout.strip())
"""


def test_processes_of_a_program_with_a_manager_ask_its_sampler_however_they_were_started(
    name: str, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(ASK_IN_CHILDREN)
    done = subprocess.run(
        [*PYTHON, program, name], env=child_environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [name] * 13
