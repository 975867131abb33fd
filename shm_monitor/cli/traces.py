"""``shm-monitor record`` and ``replay``: keep yesterday's readings, and try other limits on them."""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from shm_monitor import exits
from shm_monitor.cli import settings
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.errors import ConfigError
from shm_monitor.units import printable, printable_lines
from shm_monitor.worker.attaching import attach

if TYPE_CHECKING:
    import argparse

    from shm_monitor.traces.binary import Trace
    from shm_monitor.traces.outcome import Replayed


def record(given: argparse.Namespace) -> int:
    """Append what the sampler has and what it will measure, until Ctrl-C."""
    from shm_monitor.traces.recorder import record as record_to

    with attach(given.name, timeout=0.0, scope="any") as reader:
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

    _check_page(given.html, [given.file, given.against])
    try:
        trace = load(given.file)
    except OSError as error:
        raise _unusable(given.file, error) from error
    # The other configuration is what stands in its file: the environment and --set speak for the first one.
    tried = [("these settings", settings.load(given))]
    if given.against is not None:
        tried.append((Path(given.against).name, ResourceConfig.load(given.against, {})))
    done = [(name, config, _decided(trace, config)) for name, config in tried]
    if given.html is not None:
        _write_page(given.html, done)
    reports = [one.report() for _, _, one in done]
    shown = reports[0] if given.against is None else compare(*reports)
    print(_json(shown) if given.json else printable_lines(shown.text()))
    return exits.FINE


def _decided(trace: Trace, config: ResourceConfig) -> Replayed:
    from shm_monitor.traces.replay import decide_over, progress_bar

    with progress_bar(len(trace)) as progress:
        return decide_over(trace, config, progress=progress)


def _write_page(path: str, done: list[tuple[str, ResourceConfig, Replayed]]) -> None:
    from shm_monitor.traces.report import Tried, html

    try:
        _replace(path, html(*(Tried(*one) for one in done)))
    except OSError as error:
        raise _unusable(path, error) from error
    print(f"wrote {path}", file=sys.stderr)


def _check_page(path: str | None, inputs: list[str | None]) -> None:
    """Refuse a page that would overwrite one of *inputs*, by whatever name."""
    for one in inputs:
        with contextlib.suppress(OSError):  # one of the two does not exist
            if path is not None and one is not None and os.path.samefile(path, one):
                raise ConfigError("--html", path, "argument", f"it is {one}, which is read; name another file")


def _replace(path: str, text: str) -> None:
    """Write *text* to *path*; a disk that fills up leaves the old file. A pipe or a terminal is written to."""
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        target.write_text(text, encoding="utf-8")
        return
    new = target.with_name(f".{uuid.uuid4().hex}.new")
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)


def _unusable(path: str, error: OSError) -> ConfigError:
    return ConfigError("FILE", path, "argument", f"{error.strerror}; name a file that can be used")


def _json(data: object) -> str:
    return printable(msgspec.json.encode(data).decode())
