"""What can be measured here, and why not the rest: checks whose text is fit for a bug report.

Nothing secret comes out: no environment, no command lines; the names of the user, the host and the home are replaced.
"""

from __future__ import annotations

import os
import platform
import pwd
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from shm_monitor.doctor import machine as doctor_machine
from shm_monitor.doctor.machine import Check
from shm_monitor.errors import install_command
from shm_monitor.segment import names
from shm_monitor.units import printable

_PYTHON: tuple[int, ...] = tuple(sys.version_info[:3])
_PYTHON_LEAST = (3, 11)
_EXTRAS = {  # what is installed by pip install "shm-monitor[...]"; the empty one is what workers need
    "": ("msgspec", "python-dotenv"),
    "sampler": ("numpy", "numba", "psutil", "nvidia-ml-py"),
    "api": ("fastapi", "uvicorn", "prometheus-client"),
    "report": ("plotly", "tqdm"),
}
_OPTIONAL = {"numba": "only a fast sampler compiles", "tqdm": "a replay shows no bar"}  # not in the extra `run`
_ESSENTIAL = frozenset({"msgspec", "python-dotenv", "numpy"})
_SIGNS = {"ok": "ok     ", "warn": "warn   ", "missing": "missing"}
_WIDTH = 100


def installed_version(distribution: str) -> str | None:
    """Return the version of *distribution*, or None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


class Surroundings(NamedTuple):
    """Where the checks look; tests hand in others.

    Args:
        proc, sys: the roots of procfs and sysfs.
        shm: where segments live.
        environ: read for where numba and the system keep caches, never shown.
        python: the version of the interpreter.
        version_of: the version of an installed distribution, or None.
        nvml_library: where the linker does not find it.
        private: what must not be told, and what stands in its place.
    """

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    shm: Path = Path(names.side_directory()).parent
    environ: Mapping[str, str] = os.environ
    python: tuple[int, ...] = _PYTHON
    version_of: Callable[[str], str | None] = installed_version
    nvml_library: str | None = None
    private: Sequence[tuple[str, str]] | None = None


def examine(around: Surroundings | None = None) -> list[Check]:
    """Return every check, in the order of the report. Opens NVML: up to 20 s where a driver hangs."""
    here = Surroundings() if around is None else around
    home_cache = Path(here.environ.get("XDG_CACHE_HOME") or Path(here.environ.get("HOME") or "/", ".cache"))
    checks = [
        _check_system(),
        _check_python(here.python),
        *(_check_packages(extra, here.version_of) for extra in _EXTRAS),
        doctor_machine.check_shadowing(),
        doctor_machine.check_cgroup(here.proc, here.sys),
        doctor_machine.check_memory_scope(here.proc, here.sys),
        doctor_machine.check_cpu_scope(here.proc, here.sys),
        doctor_machine.check_stall(here.proc),
        doctor_machine.check_gpu(here.nvml_library, here.proc),
        doctor_machine.check_shared_memory(here.shm),
        doctor_machine.check_clock(here.sys),
        doctor_machine.check_compiler_cache(
            Path(__file__).parent / "kernels", here.environ.get("NUMBA_CACHE_DIR"), home_cache
        ),
    ]
    private = _private(here.environ) if here.private is None else here.private
    return [check._replace(found=printable(_blotted(check.found, private))) for check in checks]


def render(checks: Sequence[Check]) -> str:
    """Return *checks* as text for people and bug reports, without a newline at its end."""
    width = max(len(check.name) for check in checks)
    lines: list[str] = []
    for check in checks:
        indent = " " * (len(_SIGNS["ok"]) + width + 4)
        head = f"{_SIGNS[check.state]}  {check.name.ljust(width)}  "
        lines += textwrap.wrap(check.found, _WIDTH, initial_indent=head, subsequent_indent=indent)
        if check.advice and check.state != "ok":
            lines += textwrap.wrap(
                f"-> {check.advice}", _WIDTH, initial_indent=indent, subsequent_indent=f"{indent}   "
            )
    return "\n".join(lines)


def is_usable(checks: Sequence[Check]) -> bool:
    """Say whether a sampler can run here: nothing essential is missing."""
    return not any(check.essential and check.state == "missing" for check in checks)


def _check_system() -> Check:
    found = f"{platform.system()} {platform.release()} {platform.machine()}"
    if platform.system() == "Linux":
        return Check("system", "ok", found)
    return Check("system", "warn", found, "Linux measures more: cgroups, pressure stalls, death of a sampler at once")


def _check_python(version: tuple[int, ...]) -> Check:
    found = f"{platform.python_implementation()} {'.'.join(map(str, version))}"
    if version >= _PYTHON_LEAST:
        return Check("python", "ok", found, essential=True)
    return Check("python", "missing", found, "install Python 3.11 or newer", essential=True)


def _check_packages(extra: str, version_of: Callable[[str], str | None]) -> Check:
    """Return the versions of what *extra* installs; one that is needed and missing is as good as all."""
    versions = {package: version_of(package) for package in _EXTRAS[extra]}
    own = "" if extra else f"shm-monitor {version_of('shm-monitor') or '(not installed)'}, "
    found = own + ", ".join(f"{package} {version or _absent(package)}" for package, version in versions.items())
    gone = {package for package, version in versions.items() if version is None}
    name = f"packages [{extra}]" if extra else "packages"
    if gone <= _OPTIONAL.keys():
        return Check(name, "ok", found)
    return Check(name, "missing", found, install_command(extra), essential=bool(gone & _ESSENTIAL))


def _absent(package: str) -> str:
    why = _OPTIONAL.get(package)
    return "(not installed" + (f": {why})" if why else ")")


def _private(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the names of home, user and host; an account without an entry has no name to hide."""
    try:
        entry = pwd.getpwuid(os.getuid())
        user, home = entry.pw_name, entry.pw_dir
    except KeyError:
        user, home = "", ""
    homes = [(place, "~") for place in (environ.get("HOME", ""), home)]
    return [*homes, (user, "USER"), (platform.node(), "HOST"), (platform.node().partition(".")[0], "HOST")]


def _blotted(text: str, private: Sequence[tuple[str, str]]) -> str:
    """Return *text* with each private word replaced, where it stands as a whole word."""
    for word, substitute in private:
        if len(word) > 1 and word != "root":  # everybody's, and a word of the kernel's own
            text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", substitute, text)
    return text
