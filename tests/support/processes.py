"""The mark ``processes``: a test that starts a process bears it, and ``make test-fast`` leaves it out.

A file most of whose tests do has it as its ``pytestmark``, and the fixtures named here bring it along. A test that
lacks the mark is refused any process, in every run, and fails.
"""

from __future__ import annotations

import multiprocessing.util
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

LEFT_OUT = frozenset({"processes", "thorough", "slow", "soak", "browser"})  # marks of what `make test-fast` leaves out
FIXTURES = frozenset({"light", "server"})

# Source: https://docs.python.org/3/library/audit_events.html. A child that is spawned raises none of them.
_EVENTS = frozenset({"os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"})


class Guard:
    """Refuses this process, but no forked child of it, to start another one while a test runs that may not."""

    def __init__(self) -> None:
        """Watch from now on; there is no way back, as with any audit hook."""
        self._refuses_in = 0
        spawn = multiprocessing.util.spawnv_passfds

        def checked(*arguments: Any) -> int:
            self._look()
            return spawn(*arguments)

        setattr(multiprocessing.util, "spawnv_passfds", checked)  # noqa: B010 - a stub calls its types its own
        sys.addaudithook(lambda event, _: self._look() if event in _EVENTS else None)

    def take(self, test: pytest.Item) -> None:
        """Refuse processes to *test* if the loop of an edit runs it."""
        self._refuses_in = os.getpid() if LEFT_OUT.isdisjoint(mark.name for mark in test.iter_markers()) else 0

    def _look(self) -> None:
        if self._refuses_in == os.getpid():
            raise AssertionError("a test that starts a process needs its mark: @pytest.mark.processes")
