"""Log lines on standard error, with nothing in them that a terminal obeys."""

from __future__ import annotations

import logging
import sys

from shm_monitor.units import printable_lines


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of *record*: names in them are whatever their owners called them."""
        return printable_lines(super().format(record))


def log_to_stderr(level: int, pattern: str) -> None:
    """Have what is logged at *level* or above printed by *pattern*, unless the program has seen to it already."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable(pattern))
    logging.basicConfig(level=level, handlers=[handler])
