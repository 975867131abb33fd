"""The mark ``processes``: a test that starts a process bears it, and ``make test-fast`` leaves it out.

A file most of whose tests do has it as its ``pytestmark``, and the fixtures named here bring it along. A run without
those tests refuses to start any process, so a test that lacks the mark fails there.
"""

from __future__ import annotations

import multiprocessing.util
import sys
from typing import NoReturn

FIXTURES = frozenset({"light", "server"})

# Source: https://docs.python.org/3/library/audit_events.html. A child that is spawned raises none of them.
_EVENTS = frozenset({"os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"})


def forbid() -> None:
    """Let this process start no other one from now on; there is no way back, as with any audit hook."""
    sys.addaudithook(lambda event, _: _refuse() if event in _EVENTS else None)
    setattr(multiprocessing.util, "spawnv_passfds", _refuse)  # noqa: B010 - another signature than the real one's


def _refuse(*_: object) -> NoReturn:
    raise AssertionError("a test that starts a process needs its mark: @pytest.mark.processes")
