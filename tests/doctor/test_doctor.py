"""shm-monitor doctor: what can be measured here, why not the rest, and nothing that does not belong in a bug report."""

from __future__ import annotations

import json
import os
import platform
import pwd
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shm_monitor.doctor import machine as doctor_machine
from shm_monitor.doctor import report as doctor
from shm_monitor.doctor.machine import Check
from shm_monitor.doctor.report import Surroundings, examine, is_usable, render
from shm_monitor.errors import install_command
from tests.support.host_trees import Tree
from tests.support.nvml_library import StandIn
from tests.support.surroundings import child_environment

SCRIPT = """
import json, sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))  # None: the import fails
from shm_monitor.doctor.report import examine
print(json.dumps([check._asdict() for check in examine()]))
"""


def examined_elsewhere(*without: str, environ: dict[str, str] | None = None) -> dict[str, Check]:
    """Return the checks of a process of its own, in which the modules *without* cannot be imported."""
    command = [sys.executable, "-c", SCRIPT, *without]
    done = subprocess.run(command, env=environ or child_environment(), capture_output=True, text=True, check=True)
    return {row["name"]: Check(**row) for row in json.loads(done.stdout)}


@pytest.fixture
def shm(tmp_path: Path) -> Path:
    place = tmp_path / "shm"
    place.mkdir()
    return place


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A recorded host with cgroups v2."""
    return Tree("v2", tmp_path / "host")


def test_this_machine_can_run_a_sampler() -> None:
    checks = examine()

    assert is_usable(checks)
    assert len({check.name for check in checks}) == len(checks)
    states = {check.name: check.state for check in checks}
    assert states["python"] == states["packages"] == states["packages [sampler]"] == "ok"


def test_whatever_is_not_well_comes_with_advice() -> None:
    for check in examine(Surroundings(proc=Path("/none"), sys=Path("/none"), shm=Path("/none"))):
        assert check.state == "ok" or check.advice, check


def test_the_report_shows_every_check_once_with_its_advice() -> None:
    checks = [
        Check("python", "ok", "CPython 3.11", "never shown"),
        Check("gpu", "missing", "no driver " * 20, "install one"),
        Check("shared memory", "warn", "64 MB", "more"),
    ]
    report = render(checks)

    assert report.splitlines()[0] == "ok       python         CPython 3.11"
    assert "-> install one" in report
    assert "never shown" not in report
    assert all(len(line) <= 100 for line in report.splitlines())


@pytest.mark.parametrize(
    ("check", "usable"),
    [
        (Check("x", "ok", "", essential=True), True),
        (Check("x", "warn", "", essential=True), True),
        (Check("x", "missing", ""), True),
        (Check("x", "missing", "", essential=True), False),
    ],
)
def test_only_what_is_essential_and_missing_makes_a_machine_unusable(check: Check, usable: bool) -> None:
    assert is_usable([Check("python", "ok", ""), check]) is usable


def test_names_of_user_host_and_home_do_not_come_out() -> None:
    private = [("/home/ada", "~"), ("ada", "USER"), ("box7.lab", "HOST"), ("root", "USER"), ("", "X")]

    assert doctor._blotted("in /home/ada/.cache of ada at box7.lab, adam, root", private) == (
        "in ~/.cache of USER at HOST, adam, root"
    )


def test_this_report_holds_no_name_of_this_machine() -> None:
    environ = {**os.environ, "SHM_MONITOR_TOKEN": "hunter2-hunter2"}
    report = render(examine(Surroundings(environ=environ)))

    user = pwd.getpwuid(os.getuid()).pw_name
    words = {platform.node(), os.environ.get("HOME", ""), "hunter2", *([user] if user != "root" else [])}
    assert not [word for word in words if len(word) > 1 and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", report)]


@pytest.mark.processes
def test_an_account_without_a_name_is_no_obstacle() -> None:
    """Containers run under any uid."""
    code = (
        "import os, pwd\n"
        "def unknown(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = unknown\n"
        "from shm_monitor.doctor.report import examine\n"
        "assert examine()"
    )
    subprocess.run([sys.executable, "-c", code], env=child_environment(), check=True)


def test_an_old_python_is_essential() -> None:
    check = next(one for one in examine(Surroundings(python=(3, 10, 14))) if one.name == "python")

    assert (check.state, check.essential) == ("missing", True)
    assert "3.10.14" in check.found


@pytest.mark.parametrize(
    ("gone", "name", "essential"),
    [
        ("msgspec", "packages", True),
        ("numpy", "packages [sampler]", True),
        ("nvidia-ml-py", "packages [sampler]", False),
        ("fastapi", "packages [api]", False),
        ("plotly", "packages [report]", False),
    ],
)
def test_a_missing_package_names_what_to_install(gone: str, name: str, essential: bool) -> None:
    around = Surroundings(version_of=lambda package: None if package == gone else "1.0")
    check = next(one for one in examine(around) if one.name == name)

    assert (check.state, check.essential) == ("missing", essential)
    assert f"{gone} (not installed)" in check.found
    assert check.advice.startswith("pip install")


@pytest.mark.parametrize(("gone", "name"), [("numba", "packages [sampler]"), ("tqdm", "packages [report]")])
def test_what_make_run_leaves_out_is_not_missing(gone: str, name: str) -> None:
    around = Surroundings(version_of=lambda package: None if package == gone else "1.0")
    check = next(one for one in examine(around) if one.name == name)

    assert check.state == "ok"
    assert f"{gone} (not installed: " in check.found


def test_a_version_is_found_where_a_distribution_is_installed() -> None:
    assert doctor.installed_version("msgspec")
    assert doctor.installed_version("no-such-distribution") is None


@pytest.mark.processes
def test_a_worker_without_numpy_is_told_what_a_sampler_would_need() -> None:
    checks = examined_elsewhere("numpy")

    for name in ("memory", "cpu"):
        assert checks[name].state == "missing"
        assert checks[name].advice == install_command("sampler")


def test_the_binding_limit_is_named(tree: Tree, shm: Path) -> None:
    checks = {one.name: one for one in examine(Surroundings(Path(tree.roots.proc), Path(tree.roots.sys), shm))}

    assert checks["cgroup"].state == "ok"
    assert checks["cgroup"].found.startswith("v2 at ")
    assert checks["memory"].state == "ok"
    assert "binding limit: /" in checks["memory"].found
    assert "CPUs may be used" in checks["cpu"].found


@pytest.mark.parametrize(("name", "version"), [("v1", "v1"), ("v2", "v2"), ("hybrid", "v1 and v2")])
def test_the_versions_of_the_mounted_hierarchies_are_told(name: str, version: str, tmp_path: Path) -> None:
    roots = Tree(name, tmp_path).roots

    assert doctor_machine.check_cgroup(Path(roots.proc), Path(roots.sys)).found.startswith(f"{version} at ")


def test_a_host_without_cgroups_is_warned(tree: Tree) -> None:
    tree.write("proc/self/mountinfo", "24 1 8:1 / / rw - ext4 /dev/vda rw\n")
    check = doctor_machine.check_cgroup(Path(tree.roots.proc), Path(tree.roots.sys))

    assert (check.state, check.essential) == ("warn", False)
    assert "mount /sys/fs/cgroup" in check.advice


def test_a_kernel_without_pressure_stall_is_told_how_to_have_it(tmp_path: Path) -> None:
    assert "psi=1" in doctor_machine.check_stall(tmp_path).advice
    (tmp_path / "self").mkdir()
    assert "subset=pid" in doctor_machine.check_stall(tmp_path).advice
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure" / "memory").write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
    assert doctor_machine.check_stall(tmp_path).state == "ok"


def test_a_missing_place_for_segments_is_essential(tmp_path: Path) -> None:
    check = doctor_machine.check_shared_memory(tmp_path / "shm")

    assert (check.state, check.essential) == ("missing", True)


def test_a_read_only_place_for_segments_is_essential(shm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # mode bits do not stop root
    check = doctor_machine.check_shared_memory(shm)

    assert (check.state, check.essential) == ("missing", True)
    assert "not writable" in check.found


def test_a_small_place_for_segments_is_warned(shm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(shm)
    few = os.statvfs_result((*real[:2], (32 << 20) // real.f_frsize, *real[3:]))
    monkeypatch.setattr(os, "statvfs", lambda _: few)
    check = doctor_machine.check_shared_memory(shm)

    assert check.state == "warn"
    assert "of 32 MB" in check.found
    assert "--shm-size" in check.advice


@pytest.mark.parametrize(("source", "state"), [("tsc", "ok"), ("kvm-clock", "ok"), ("hpet", "warn"), (None, "warn")])
def test_a_slow_clock_source_is_warned(source: str | None, state: str, tmp_path: Path) -> None:
    place = tmp_path / "devices/system/clocksource/clocksource0"
    place.mkdir(parents=True)
    if source is not None:
        (place / "current_clocksource").write_text(f"{source}\n")

    assert doctor_machine.check_clock(tmp_path).state == state


def test_the_place_of_the_compiler_cache_is_found_as_numba_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    real = os.access
    monkeypatch.setattr(os, "access", lambda place, mode: place != closed and real(place, mode))  # also for root

    assert doctor_machine.check_compiler_cache(tmp_path, None, closed).found == "in the package"
    assert doctor_machine.check_compiler_cache(closed, None, tmp_path / "new").found == "in the home"
    assert doctor_machine.check_compiler_cache(closed, str(tmp_path), closed).found == "in NUMBA_CACHE_DIR"
    check = doctor_machine.check_compiler_cache(tmp_path, str(closed / "below"), tmp_path)
    assert (check.state, check.essential) == ("warn", False)


def test_a_broken_source_does_not_end_the_report(tree: Tree) -> None:
    tree.write("proc/self/cgroup", "\x00\xff nonsense")
    tree.write("proc/meminfo", "nonsense")
    tree.write("proc/stat", "nonsense")

    assert len(examine(Surroundings(Path(tree.roots.proc), Path(tree.roots.sys)))) == len(examine())


@pytest.mark.processes
def test_gpus_are_named_with_their_driver(tmp_path: Path) -> None:
    nvml = StandIn.create(tmp_path)
    nvml.script("devices 2")
    check = examined_elsewhere(environ={**child_environment(), **nvml.environ})["gpu"]

    assert check.state == "ok"
    assert check.found.startswith("driver ")
    assert ": 0 " in check.found
    assert ", 1 " in check.found


def test_without_a_driver_the_gpu_is_missing_and_not_essential() -> None:
    check = doctor_machine.check_gpu("/none/libnvidia-ml.so.1", Path("/proc"))

    assert (check.state, check.essential) == ("missing", False)
    assert check.found
