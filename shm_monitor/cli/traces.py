"""``shm-monitor record`` and ``replay``: keep yesterday's readings, and try other limits on them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from shm_monitor import exits
from shm_monitor.cli import settings
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.errors import ConfigError
from shm_monitor.units import printable, printable_lines
from shm_monitor.worker.reader import attach

if TYPE_CHECKING:
    import argparse

    from shm_monitor.traces.binary import Trace
    from shm_monitor.traces.episodes import Report


def record(given: argparse.Namespace) -> int:
    """Append what the sampler has and what it will measure, until Ctrl-C."""
    from shm_monitor.traces.recorder import record as record_to

    with attach(given.name, timeout=0.0) as reader:
        try:
            count = record_to(
                reader, given.file, follow=not given.once, seconds=given.seconds, everything=given.everything
            )
        except KeyboardInterrupt:
            print(f"stopped; go on with: shm-monitor record {given.file}", file=sys.stderr)
            return exits.FINE
        except OSError as error:
            raise _unusable(given.file, error) from error
    print(f"{count} samples recorded to {given.file}", file=sys.stderr)
    return exits.FINE


def replay(given: argparse.Namespace) -> int:
    """Print what the configuration would have decided over a recorded trace, and how another one differs."""
    from shm_monitor.traces.episodes import compare
    from shm_monitor.traces.replay import load

    try:
        trace = load(given.file)
    except OSError as error:
        raise _unusable(given.file, error) from error
    before = _decided(trace, settings.load(given), page=given.html)
    if given.against is None:
        print(_json(before) if given.json else printable_lines(before.text()))
        return exits.FINE
    # The other configuration is what stands in its file: the environment and --set speak for the first one.
    difference = compare(before, _decided(trace, ResourceConfig.load(given.against, {}), page=None))
    print(_json(difference) if given.json else printable_lines(difference.text()))
    return exits.FINE


def _decided(trace: Trace, config: ResourceConfig, *, page: str | None) -> Report:
    from shm_monitor.traces.replay import decide_over, progress_bar

    with progress_bar(len(trace)) as progress:
        done = decide_over(trace, config, progress=progress)
    if page is not None:
        from shm_monitor.traces.report import html

        try:
            Path(page).write_text(html(done), encoding="utf-8")
        except OSError as error:
            raise _unusable(page, error) from error
        print(f"wrote {page}", file=sys.stderr)
    return done.report()


def _unusable(path: str, error: OSError) -> ConfigError:
    return ConfigError("FILE", path, "argument", f"{error.strerror}; name a file that can be used")


def _json(data: object) -> str:
    return printable(msgspec.json.encode(data).decode())
