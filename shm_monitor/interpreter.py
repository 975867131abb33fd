"""Which Python runs our other processes, and where it finds its modules."""

from __future__ import annotations

import os
import re
import shutil
import sys

from shm_monitor.errors import InterpreterError

_PYTHON = re.compile(r"(python|pypy|graalpy)[0-9.]*[a-z]*(\.exe)?", re.IGNORECASE)


def interpreter(chosen: str | None = None) -> str:
    """Return the path of the Python for a process of ours: *chosen* (the setting ``PYTHON``), else our own.

    Raises:
        InterpreterError: *chosen* is not there, or this program is not run by a Python: a frozen application
            (PyInstaller) or a program that embeds one would start itself.
    """
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise InterpreterError(f"PYTHON={chosen} is no program that can be run")
        return found
    if getattr(sys, "frozen", False):
        raise InterpreterError(f"this program is frozen, and {sys.executable} would start it again")
    if not sys.executable:
        raise InterpreterError("this program does not know its own Python (sys.executable is empty)")
    if not _PYTHON.fullmatch(os.path.basename(sys.executable)):
        raise InterpreterError(f"this program is run by {sys.executable}, which is no Python")
    return sys.executable


def same_modules() -> dict[str, str]:
    """Return the environment by which a child, started with ``-P``, finds the modules that this process finds.

    The directories of the script and of the work come last: a ``numpy.py`` beside ``train.py`` is not numpy.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None) or ""
    own = {os.path.dirname(os.path.abspath(script)), _working_directory()}
    path: list[object] = list(sys.path)  # anything may be there; import passes over all that is no text
    entries = [entry for entry in path if isinstance(entry, str) and entry]
    return {"PYTHONPATH": os.pathsep.join(sorted(entries, key=lambda entry: os.path.abspath(entry) in own))}


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""
