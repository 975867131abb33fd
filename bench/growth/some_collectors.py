"""A sampler process with some of its collectors only. Usage: python -m bench.growth.some_collectors NAME ..."""

from __future__ import annotations

import sys
from typing import Any

from shm_monitor import collectors
from shm_monitor.collectors.base import Collector
from shm_monitor.sampler.__main__ import main

discover_all = collectors.discover


def discover_some(**options: Any) -> list[Collector]:
    """Return those collectors that are named on the command line."""
    return [one for one in discover_all(**options) if one.name in sys.argv[1:]]


if __name__ == "__main__":
    collectors.discover = discover_some
    sys.exit(main())
