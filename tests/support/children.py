"""Children of a test: Python code that runs in a process of its own, so that its death or its uid is its own."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.surroundings import UNMEASURED, child_environment

PYTHON = (sys.executable, "-P")  # modules come from PYTHONPATH alone, so that the wheel is tested where it is installed
NOBODY = 1_000_000 + os.getpid()  # a user whom no other process of this machine is, also not one of another test

PRIVATE_SHM = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)

def private_shm(options):
    # CLONE_NEWNS; then MS_REC | MS_PRIVATE, so that the mount below stays in this process.
    if libc.unshare(0x00020000) or libc.mount(None, b"/", None, 0x4000 | 1 << 18, None):
        raise SystemExit(77)
    if libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, options.encode()):
        raise SystemExit(77)
"""
"""Gives the child a /dev/shm of its own: ``private_shm("size=64k")``; exit status 77 where that is not permitted."""

NOT_PERMITTED = 77


def run_python(
    code: str, *arguments: object, timeout: float = 60.0, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run *code* with *arguments* as ``sys.argv[1:]``; return its status (negative for a signal) and output."""
    return subprocess.run(
        [*PYTHON, "-X", "faulthandler", "-W", "error", "-c", code, *map(str, arguments)],
        env=child_environment(OPENBLAS_NUM_THREADS="1", **UNMEASURED, **(environ or {})),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def output_of(code: str, *arguments: object, timeout: float = 60.0, environ: dict[str, str] | None = None) -> str:
    """Run *code*, which must succeed; return what it printed."""
    done = run_python(code, *arguments, timeout=timeout, environ=environ)
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()
