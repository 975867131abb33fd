"""What the API writes to stderr: text for people, or one JSON object a line for collectors of logs.

What anybody can cause by a request is throttled, and the query of a request is never written: people put tokens there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

LEVELS = ("debug", "info", "warning", "error")
ACCESS = "uvicorn.access"
BURST_LINES = 5  # of one kind ...
BURST_SECONDS = 10.0  # ... in so many seconds
KINDS_MAX = 256
_TEXT = "shm-monitor api: %(message)s"


class JsonFormatter(logging.Formatter):
    """One record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return time (RFC 3339, UTC), level, logger and message; of a request its parts; of an error its traceback."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.name == ACCESS and isinstance(record.args, tuple) and len(record.args) == 5:
            client, method, path, _, status = record.args
            line |= {"client": client, "method": method, "path": path, "status": status}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class WithoutQuery(logging.Filter):
    """Takes the query out of the line of a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let *record* pass, as ``/path?...``."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(_without_query, record.args))
        return True


def _without_query(argument: object) -> object:
    if not isinstance(argument, str) or "?" not in argument:
        return argument
    return argument.partition("?")[0] + "?..."


class WithoutCancelled(logging.Filter):
    """Leaves out the traceback of an answer that a stop cut short: its client did not read it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether *record* is about anything else."""
        return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


class Throttle(logging.Filter):
    """Lets ``BURST_LINES`` lines of one kind pass per ``BURST_SECONDS``, and then says how many were left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, str], list[float]] = {}  # its window's begin, and how many lines came since

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether *record* is written. A kind is a message before its values are put in."""
        if record.name == ACCESS:
            return True  # asked for, a line per request
        now, kind = self._clock(), (record.name, str(record.msg))
        if len(self._kinds) >= KINDS_MAX and kind not in self._kinds:
            self._kinds.clear()
        window = self._kinds.setdefault(kind, [now, 0])
        if now - window[0] >= BURST_SECONDS:
            left_out = int(window[1]) - BURST_LINES
            window[:] = [now, 0]
            if left_out > 0:
                record.msg, record.args = f"{record.getMessage()} ({left_out} more such lines were left out)", ()
        window[1] += 1
        return window[1] <= BURST_LINES


def log_config(*, json: bool, level: str) -> dict[str, Any]:
    """Return what ``logging.config.dictConfig`` takes; everything goes to stderr, stdout is for data."""
    formatter = {"()": JsonFormatter} if json else {"format": _TEXT}
    warnings = {"handlers": ["stderr"], "level": "WARNING" if level == "info" else level.upper(), "propagate": False}
    loggers = {
        "asyncio": warnings,
        "uvicorn": warnings,
        ACCESS: {"handlers": ["stderr"], "level": "INFO", "propagate": False, "filters": ["query"]},
        "shm_monitor": {"handlers": ["stderr"], "level": level.upper(), "propagate": False},
    }
    stderr = {
        "class": "logging.StreamHandler",
        "formatter": "line",
        "filters": ["cancelled", "throttle"],
        "stream": "ext://sys.stderr",
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": formatter},
        "filters": {"query": {"()": WithoutQuery}, "cancelled": {"()": WithoutCancelled}, "throttle": {"()": Throttle}},
        "handlers": {"stderr": stderr},
        "loggers": loggers,
    }
