"""``shm-monitor episodes``: when pressure began, changed and ended, also of a sampler that is no more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from shm_monitor import exits
from shm_monitor.errors import ConfigError
from shm_monitor.segment import names
from shm_monitor.snapshot.episode_log import EpisodeRecord, begun_before, follow, read
from shm_monitor.units import printable

if TYPE_CHECKING:
    import argparse

_SECONDS_OF = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SINCE_ALLOWED = "unix seconds, or how long ago: 90s, 10m, 2h, 1d"


def episodes(given: argparse.Namespace) -> int:
    """Print the events that the log has, one a line; with *follow* also those to come, until Ctrl-C.

    Of an episode that was open at the time *since* its beginning comes first.
    """
    name, since = names.resolve(given.name), since_of(given.since, time.time())
    for one in begun_before(name, since):
        print(_line(one, as_json=given.json))
    for found in follow(name, since=since) if given.follow else [read(name, since=since)]:
        for one in found:
            print(_line(one, as_json=given.json))
        if given.follow and found:
            print(end="", flush=True)
    return exits.FINE


def since_of(text: str | None, now: float) -> float:
    """Return in unix seconds what *text* means at *now*; 0 for None.

    Raises:
        ConfigError: it is neither a time nor how long ago.
    """
    if text is None:
        return 0.0
    unit = _SECONDS_OF.get(text[-1:])
    try:
        number = float(text if unit is None else text[:-1])
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ConfigError("--since", text, "argument", _SINCE_ALLOWED)
    return number if unit is None else now - number * unit


def _line(one: EpisodeRecord, *, as_json: bool) -> str:
    return printable(msgspec.json.encode(one).decode()) if as_json else str(one)
