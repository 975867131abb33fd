"""What the API writes to stderr: text for people, or one JSON object a line for collectors of logs."""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec

LEVELS = ("debug", "info", "warning", "error")
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
        if record.name == "uvicorn.access" and isinstance(record.args, tuple) and len(record.args) == 5:
            client, method, path, _, status = record.args
            line |= {"client": client, "method": method, "path": path, "status": status}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def log_config(*, json: bool, level: str) -> dict[str, Any]:
    """Return what ``logging.config.dictConfig`` takes; everything goes to stderr, stdout is for data."""
    formatter = {"()": JsonFormatter} if json else {"format": _TEXT}
    loggers = {
        "uvicorn": {
            "handlers": ["stderr"],
            "level": "WARNING" if level == "info" else level.upper(),
            "propagate": False,
        },
        "uvicorn.access": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "shm_monitor": {"handlers": ["stderr"], "level": level.upper(), "propagate": False},
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": formatter},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}},
        "loggers": loggers,
    }
