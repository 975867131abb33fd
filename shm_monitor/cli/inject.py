"""``shm-monitor inject``: false readings for a while, to try how workers react."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from shm_monitor import exits
from shm_monitor.errors import ConfigError
from shm_monitor.segment import injection
from shm_monitor.worker.attaching import attach
from shm_monitor.worker.injecting import inject as falsify
from shm_monitor.worker.injecting import reading_of

if TYPE_CHECKING:
    import argparse

SECONDS_MAX = 24 * 3600.0


def inject(given: argparse.Namespace) -> int:
    """Tell the sampler which readings to falsify, and for how long."""
    if given.end:
        with attach(given.name, timeout=0.0, scope="any") as reader:
            injection.end(reader.name)
        return exits.FINE
    asked = dict(map(reading_of, given.readings))
    if not asked or not 0 < given.seconds <= SECONDS_MAX:
        raise ConfigError("inject", given.seconds, "argument", "METRIC=NUMBER ... --seconds 1 to 86400")
    with attach(given.name, timeout=0.0, scope="any") as reader:
        falsify(reader, asked, given.seconds)
    print(f"injecting for {given.seconds:g} s: {', '.join(given.readings)}", file=sys.stderr)
    return exits.FINE
