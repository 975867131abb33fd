"""``shm-monitor top``: one sampler on the whole screen."""

from __future__ import annotations

import os
import signal
import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

from shm_monitor import exits
from shm_monitor.tui.plain import follow
from shm_monitor.tui.source import LocalSource, RemoteSource, Source

if TYPE_CHECKING:
    import argparse

HINT = "this is no terminal: one line per change, until Ctrl-C; for one frame: shm-monitor top --once"
TOKEN_VARIABLE = "SHM_MONITOR_TOKEN"  # noqa: S105 - the name of it


def top(given: argparse.Namespace) -> int:
    """Show a sampler of this machine, or one behind an API, until ``q``."""
    source: Source = RemoteSource(given.url, os.environ.get(TOKEN_VARIABLE)) if given.url else LocalSource(given.name)
    try:
        return _show(source, given)
    finally:
        source.close()


def _show(source: Source, given: argparse.Namespace) -> int:
    if given.once:
        return _once(source, given)
    if not is_installed() or not sys.stdout.isatty() or given.plain:
        if is_installed() and not given.plain:
            print(f"shm-monitor: {HINT}", file=sys.stderr)
        follow(source, sys.stdout, _slept)
        return exits.FINE
    from shm_monitor.tui.app import TopApp

    TopApp(source, url=given.url or given.api_url or "").run()
    signal.alarm(0)  # it has left in time
    return exits.FINE


def _once(source: Source, given: argparse.Namespace) -> int:
    frame = source.newest()
    if given.plain or not is_installed():
        from shm_monitor.tui.plain import line_of

        print(line_of(frame))
    else:
        from shm_monitor.tui.app import PAST_SAMPLES
        from shm_monitor.tui.frame import print_frame

        print_frame(frame, source.past(PAST_SAMPLES), sys.stdout, width=given.width)
    if not frame.live:
        return exits.NO_SAMPLER
    return exits.FINE


def is_installed() -> bool:
    """Say whether the full screen can be had."""
    return find_spec("textual") is not None


def _slept(seconds: float) -> bool:
    time.sleep(seconds)
    return False
