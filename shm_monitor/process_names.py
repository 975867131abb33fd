"""What a process is called: its script, its module, its part in multiprocessing, or its program.

Never an argument: a command line may hold secrets. Our own processes are called ``shm-monitor sampler``,
``shm-monitor api``, ``shm-monitor run``, ``shm-monitor top`` and so on.

Source: proc_pid_cmdline(5), proc_pid_status(5); the options of python(1).
"""

from __future__ import annotations

import os
import re
from functools import lru_cache

from shm_monitor.forks import importing
from shm_monitor.light import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_READ_BYTES = 4096  # the code of a `python -c` may have megabytes, and none of it is shown
_CHARACTERS_MAX = 80
_GENERATIONS_MAX = 8  # of processes that multiprocessing started, one by the other
_STATUS = re.compile(r"^(Name|PPid|Uid):\s*(.+)$", re.MULTILINE)
_PYTHON = re.compile(r"(python|pypy)[\d.]*(t|d|-dbg)?", re.IGNORECASE)
_OPTION = re.compile(r"-[^-cmWX]+|-[^-cmWX]*([cmWX])(.*)", re.DOTALL)
_HELPER = re.compile(r"from multiprocessing\.(spawn|forkserver|resource_tracker) import ")
_HELPERS = {"spawn": "spawn_main", "forkserver": "forkserver", "resource_tracker": "resource_tracker"}
_COMMAND = "shm-monitor"
_OURS = {
    "-m shm_monitor": _COMMAND,
    "-m shm_monitor.sampler": "shm-monitor sampler",
    "-m shm_monitor_api": "shm-monitor api",
}


class ProcessName(NamedTuple):
    """One process for people.

    Args:
        name: ``train.py``, ``-m torch.distributed.run``, ``-c``, ``spawn_main of train.py``, ``bash``; empty where the
            process is gone or hidden.
        user: whose it is where it is not ours; else empty.
    """

    name: str = ""
    user: str = ""


NOBODY = ProcessName()


def name_of(pid: int, proc: str = "/proc") -> ProcessName:
    """Return what *pid* is called in *proc*. 0.1 ms, and as much for each parent that its name says."""
    status = _status(pid, proc)
    if not status:
        return NOBODY
    uid = int(status["Uid"].split()[1])
    return ProcessName(_name(pid, status, proc)[:_CHARACTERS_MAX], "" if uid == os.geteuid() else _user(uid))


@lru_cache(maxsize=1024)
def remembered_name_of(pid: int, *identity: int) -> ProcessName:  # noqa: ARG001 - part of the key
    """Return what *pid* is called, looked up once; *identity* tells it from another process that gets its pid."""
    return name_of(pid)


def program_of(words: Sequence[str]) -> str:
    """Return what the command line *words* runs.

    >>> program_of(["python3.12", "-Wd", "-m", "torch.distributed.run", "--token", "secret"])
    '-m torch.distributed.run'
    >>> program_of(["python3", "-c", "from multiprocessing.spawn import spawn_main; spawn_main(pipe_handle=7)"])
    'spawn_main'
    """
    program = _basename(words)
    if not _PYTHON.fullmatch(program):
        return program
    found, rest = _python_program(words[1:])
    found = _OURS.get(found, found)
    return f"{found} {rest[0]}" if found == _COMMAND and rest and rest[0].isalpha() else found or program


def _basename(words: Sequence[str]) -> str:
    """Return the name of the program, which may be a login shell (``-bash``) or have a title by setproctitle(3).

    A path may have spaces where arguments follow as words of their own; Chromium writes its arguments into one word.
    """
    path = words[0] if words[0].startswith("/") and len(words) > 1 else words[0].partition(" ")[0]
    return os.path.basename(path).removeprefix("-").removesuffix(":")


def _python_program(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return what an interpreter runs whose arguments are *words*, and the arguments of that; see python(1)."""
    rest = iter(words)
    for word in rest:
        option = _OPTION.fullmatch(word)
        if word == "--check-hash-based-pycs":
            next(rest, "")
        elif option is None and not word.startswith("-"):
            return os.path.basename(word.rstrip("/")), list(rest)
        elif option is not None and option[1]:
            value = option[2] or next(rest, "")
            if option[1] == "m":
                return f"-m {value}", list(rest)
            if option[1] == "c":
                helper = _HELPER.match(value)
                return "-c" if helper is None else _HELPERS[helper[1]], []
        elif word == "-":
            break
    return "", []


def _name(pid: int, status: Mapping[str, str], proc: str) -> str:
    """Return the program of *pid*, and for a part of multiprocessing whose it is."""
    words = _words(pid, proc)
    if not words[0]:
        return f"[{status['Name']}]"  # a thread of the kernel
    program = name = program_of(words)
    for _ in range(_GENERATIONS_MAX):
        if name not in _HELPERS.values():
            break
        pid = int(status["PPid"])
        status, words = _status(pid, proc), _words(pid, proc)
        if not status or not _PYTHON.fullmatch(_basename(words)):
            return program  # it is an orphan: whoever adopted it did not start it
        name = program_of(words)
        if program == name == "forkserver":
            program = "forkserver child"
    return program if program == name else f"{program} of {name}"


def _words(pid: int, proc: str) -> list[str]:
    return _read(pid, "cmdline", proc).rstrip("\0 ").split("\0")


def _status(pid: int, proc: str) -> Mapping[str, str]:
    """Return name, parent and users of *pid*; empty where it is gone or hidden."""
    found = dict(_STATUS.findall(_read(pid, "status", proc)))
    return found if len(found) == 3 else {}


def _read(pid: int, file: str, proc: str) -> str:
    try:
        with open(f"{proc}/{pid}/{file}", "rb", buffering=0) as stream:
            return stream.read(_READ_BYTES).decode(errors="backslashreplace")
    except OSError:
        return ""


@lru_cache(maxsize=64)
def _user(uid: int) -> str:
    try:
        with importing:
            import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return str(uid)
