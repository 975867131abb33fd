"""Small containers: whatever a limit of the system forbids is said in one line that names it, and leaves nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from shm_monitor import exits
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.manager import ResourceManager
from shm_monitor.supervision.refusals import refusal
from tests.support.children import NOT_PERMITTED, PYTHON, run_python
from tests.support.light_sampler import LightSamplers, end
from tests.support.surroundings import UNMEASURED, child_environment, files_of
from tests.support.waiting import wait_until

pytestmark = pytest.mark.processes

# Nobody else's, not even another run of the tests. Root may start as many processes as it likes, setrlimit(2).
UNUSED_UID = 50_000 + os.getpid() % 5_000

COMMAND = """
import resource, sys
kind, value, *arguments = sys.argv[1:]
resource.setrlimit(getattr(resource, "RLIMIT_" + kind), (int(value), int(value)))
from shm_monitor.cli import main
sys.exit(main(arguments))
"""

MANAGER = """
import resource, sys
name, kind, value = sys.argv[1:]
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.errors import MonitorError
from shm_monitor.manager import ResourceManager
resource.setrlimit(getattr(resource, "RLIMIT_" + kind), (int(value), int(value)))
try:
    with ResourceManager(ResourceConfig(name=name)) as manager:
        print("live", manager.should_prune())
except MonitorError as error:
    print(type(error).__name__, error)
"""


def limited(kind: str, value: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command with RLIMIT_*kind* at *value*; return what became of it."""
    return run_python(COMMAND, kind, value, *arguments)


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        ("NOFILE", 7, "too many open files; the limit for open files is 7 (ulimit -n); try: ulimit -n"),
        ("NOFILE", 10, "too many open files; the limit for open files is 10 (ulimit -n); try: ulimit -n"),
        ("NOFILE", 16, "too many open files; the limit for open files is 16 (ulimit -n); try: ulimit -n"),
        ("FSIZE", 0, "a file would be too large; the limit for size of a file is 0 (ulimit -f, in KB); try: ulimit -f"),
    ],
)
def test_what_is_too_little_for_a_sampler_is_one_line(name: str, kind: str, value: int, told: str) -> None:
    done = limited(kind, value, "run", "--name", name, "--", "true")

    assert done.returncode == exits.NO_SAMPLER
    assert [line.startswith("shm-monitor: ") for line in done.stderr.splitlines()] == [True], done.stderr
    assert told in done.stderr
    assert files_of(name) == []


def test_300_mb_of_address_space_are_enough(name: str) -> None:
    """LLVM cannot be loaded there: the kernels stay interpreted, and one line says so."""
    done = limited("AS", 300 << 20, "run", "--name", name, "--", sys.executable, "-c", "import time; time.sleep(1)")

    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert files_of(name) == []


@pytest.mark.parametrize(("kind", "value"), [("NOFILE", 10), ("FSIZE", 0)])
def test_the_program_that_asks_for_a_sampler_gets_a_typed_error(name: str, kind: str, value: int) -> None:
    done = run_python(MANAGER, name, kind, value)

    assert done.stdout.startswith("SamplerError ")
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 6])
def test_no_process_or_thread_to_be_had_is_one_line(name: str, processes: int) -> None:
    """The supervisor's thread, the sampler, and the threads of the sampler each need one."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("becoming a user without processes needs root and setpriv (util-linux)")
    user = [f"--reuid={UNUSED_UID}", f"--regid={UNUSED_UID}", "--clear-groups"]
    # May read everything, so that the interpreter and the checkout may lie in somebody's home.
    reading = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    python = ["setpriv", *user, *reading, *PYTHON, "-c", COMMAND, "NPROC", str(processes)]
    done = subprocess.run(
        [*python, "run", "--name", name, "--", "true"],
        env=child_environment(HOME="/nonexistent", PYTHONDONTWRITEBYTECODE="1", **UNMEASURED),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "Traceback" not in done.stderr
    assert files_of(name) == []
    if processes <= 2:  # beyond, it depends on which of them are there at the same time
        assert done.returncode == exits.NO_SAMPLER
        assert [line.startswith("shm-monitor: ") for line in done.stderr.splitlines()] == [True], done.stderr
        assert f"the limit for processes and threads of this user is {processes} (ulimit -u)" in done.stderr


ATTACH = """
import resource, sys
import shm_monitor as sm
from shm_monitor.worker.attaching import attach
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    attach(sys.argv[1], timeout=0.0)
except sm.NotReadyError as error:
    print(error)
"""


def test_a_reader_without_a_descriptor_left_says_so_and_mistrusts_nobody(name: str) -> None:
    with ResourceManager(ResourceConfig(name=name, check_interval=0.05)):
        done = run_python(ATTACH, name)

    assert "cannot be opened: Too many open files (ulimit -n)" in done.stdout, done.stderr


ORPHANED = """
import os, resource, sys, time
from shm_monitor.segment.status import state_of
from shm_monitor.worker.attaching import attach
reader = attach(sys.argv[1], timeout=5.0, on_stale=sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
os.kill(int(sys.argv[2]), 9)
deadline = time.monotonic() + 20
while state_of(reader.view()) == "live" and time.monotonic() < deadline:
    time.sleep(0.01)
print(reader.should_prune())
"""


@pytest.mark.parametrize(("on_stale", "answer"), [("never", "False"), ("always", "True"), ("hold", "False")])
def test_a_worker_without_a_descriptor_left_has_an_answer_when_its_sampler_dies(
    name: str, light: LightSamplers, on_stale: str, answer: str
) -> None:
    """What it would load to log the death, or to judge it, cannot be read."""
    done = run_python(ORPHANED, name, light.one(name).pid, on_stale)

    assert done.stderr == ""
    assert done.stdout == f"{answer}\n"


HIDE = """
import ctypes, os, runpy, sys
libc = ctypes.CDLL(None, use_errno=True)
place, *arguments = sys.argv[1:]
# CLONE_NEWNS; then MS_REC | MS_PRIVATE, so that what is mounted below stays in this process.
if libc.unshare(0x00020000) or libc.mount(None, b"/", None, 0x4000 | 1 << 18, None):
    sys.exit(77)
if libc.mount(b"tmpfs", place.encode(), b"tmpfs", 0, b"size=1m"):
    sys.exit(77)
if place == "/dev":
    os.mknod("/dev/null", 0o20666, os.makedev(1, 3))
    os.mknod("/dev/urandom", 0o20666, os.makedev(1, 9))
from shm_monitor.cli import main
sys.exit(main(arguments))
"""


def without(place: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command where *place* is empty; skip where that cannot be had."""
    done = run_python(HIDE, place, *arguments)
    if done.returncode == NOT_PERMITTED:
        pytest.skip("mounting is not permitted here")
    return done


@pytest.mark.parametrize(
    ("place", "told"),
    [("/proc", "there is no /proc, which is what it reads; try: mount -t proc"), ("/dev", "/dev/shm does not exist")],
)
def test_a_missing_file_system_is_one_line(name: str, place: str, told: str) -> None:
    done = without(place, "run", "--name", name, "--", "true")

    assert done.returncode == exits.NO_SAMPLER
    assert [line.startswith("shm-monitor: ") for line in done.stderr.splitlines()] == [True], done.stderr
    assert told in done.stderr


@pytest.mark.parametrize("verb", ["list", "clean"])
def test_without_dev_shm_the_verbs_that_look_there_say_so(verb: str) -> None:
    done = without("/dev", verb)

    assert (done.returncode, done.stdout) == (exits.NO_SAMPLER, "")
    assert done.stderr == "shm-monitor: /dev/shm: No such file or directory; try: shm-monitor doctor\n"


@pytest.mark.parametrize(("place", "advice"), [("/dev", "mount a tmpfs at /dev/shm"), ("/proc", "mount -t proc proc")])
def test_the_doctor_says_what_is_missing_and_that_no_sampler_runs(place: str, advice: str) -> None:
    done = without(place, "doctor")

    assert (done.returncode, done.stderr) == (exits.PRUNE, "")
    assert advice in done.stdout


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_error(name: str, closed: str) -> None:
    """A daemon may have none; what is opened next must not take their numbers."""
    command = f"{' '.join(PYTHON)} -m shm_monitor run --name {name} -- sh -c 'exit 7' {closed}"
    done = subprocess.run(["sh", "-c", command], env=child_environment(), capture_output=True, text=True, check=False)

    assert done.returncode == 7
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert files_of(name) == []


@pytest.mark.parametrize("verb", ["list", "doctor"])
def test_a_verb_that_prints_to_a_closed_stream_is_no_error(verb: str) -> None:
    command = f"{' '.join(PYTHON)} -m shm_monitor {verb} >&-"
    done = subprocess.run(["sh", "-c", command], env=child_environment(), capture_output=True, text=True, check=False)

    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


def test_a_close_between_a_death_and_the_next_start_leaves_nothing(name: str) -> None:
    manager = ResourceManager(ResourceConfig(name=name, check_interval=0.05))
    pid = manager.status().pid
    assert pid is not None
    end(pid)
    wait_until(lambda: manager.status().state == "stale")
    manager.close()

    assert files_of(name) == []


def test_what_is_no_limit_of_the_system_is_left_to_be_seen() -> None:
    assert refusal(ValueError("too small"), "x") is None
    assert refusal(FileNotFoundError(2, "No such file or directory"), "x") is None


def test_the_cause_of_an_error_counts() -> None:
    error = ImportError("numpy cannot be imported")
    error.__cause__ = OSError(24, "Too many open files")

    assert "x: too many open files; " in str(refusal(error, "x"))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        ImportError("libopenblas.so: failed to map segment from shared object"),
    ],
)
def test_memory_that_is_not_to_be_had_names_its_limit(error: Exception) -> None:
    assert "x: no memory; the limit for address space is " in str(refusal(error, "x"))
