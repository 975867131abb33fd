"""``shm-monitor api``: the REST API, a process of its own that is started by name and never imported here."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

from shm_monitor import exits
from shm_monitor.config import origins
from shm_monitor.errors import MissingDependencyError
from shm_monitor.interpreter import interpreter, same_modules

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from shm_monitor.config.env_file import EnvFile

MODULE = "shm_monitor_api"
DEFAULT_BIND = "127.0.0.1:8909"
PACKAGES = ("fastapi", "uvicorn", "prometheus_client", MODULE)


def api(given: argparse.Namespace) -> NoReturn:
    """Become the API process: same pid, same terminal, so that its signals and its exit status are this command's.

    Raises:
        MissingDependencyError: the packages of the API are not installed.
        ConfigError: the ``.env`` file cannot be read.
    """
    check_installed()
    command = command_line(*given.rest)
    environ = environment(given.env_file, os.environ)
    sys.stdout.flush()
    os.execve(command[0], command, environ)  # noqa: S606 - our own interpreter, no shell


def check_installed() -> None:
    """Raise ``MissingDependencyError`` where a package of the API is missing."""
    for package in PACKAGES:
        if find_spec(package) is None:
            raise MissingDependencyError("the REST API", "api", package)


def url(bind: str | None, environ: Mapping[str, str]) -> str:
    """Return where an API that is told *bind* listens, for people."""
    return f"http://{bind or environ.get('SHM_MONITOR_BIND') or DEFAULT_BIND}"


def command_line(*options: str) -> list[str]:
    """Return the command that starts an API process."""
    return [interpreter(), "-P", "-m", MODULE, *options]


def is_refused(command: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Return whether the API that *command* starts would not serve with these settings; it says itself why."""
    checked = subprocess.run([*command, "--check"], env=dict(environ), stdin=subprocess.DEVNULL, check=False)
    return checked.returncode == exits.USAGE


def environment(env_file: EnvFile, environ: Mapping[str, str]) -> dict[str, str]:
    """Return *environ* for an API process, with what the ``.env`` file says to it where *environ* does not.

    Raises:
        ConfigError: the file cannot be read.
    """
    return {**origins.for_serving(env_file), **environ, **same_modules()}
