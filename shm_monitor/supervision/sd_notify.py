"""Tell systemd that the service is ready and alive. Source: sd_notify(3), sd_watchdog_enabled(3)."""

from __future__ import annotations

import contextlib
import math
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Notifier:
    """Sends to the socket that ``NOTIFY_SOCKET`` names; without it, nothing.

    Attributes:
        watchdog_seconds: how often at least systemd wants ``alive``; infinity where it does not.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read what systemd put into *environ*."""
        path = environ.get("NOTIFY_SOCKET", "")
        # A leading "@" means the abstract namespace of Linux, which starts with a zero byte.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self.watchdog_seconds = math.inf
        if self._address and environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            with contextlib.suppress(ValueError):
                self.watchdog_seconds = int(environ.get("WATCHDOG_USEC", "")) / 1e6

    def ready(self) -> None:
        """Say that the first sample can be read."""
        self._send(b"READY=1\nSTATUS=sampling")

    def alive(self) -> None:
        """Say that the supervisor turns, if systemd wants to know."""
        if self.watchdog_seconds < math.inf:
            self._send(b"WATCHDOG=1")

    def stopping(self) -> None:
        """Say that a stop has begun."""
        self._send(b"STOPPING=1")

    def _send(self, message: bytes) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(message, self._address)
