"""``shm-monitor open``: the dashboard of a running API, in the browser."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
import webbrowser
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shm_monitor import exits
from shm_monitor.cli import api
from shm_monitor.errors import ConfigError
from shm_monitor.units import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

ANSWER_SECONDS = 3.0
EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - where to reach what listens everywhere


def open_dashboard(given: argparse.Namespace) -> int:
    """Print where the dashboard is, and show it where there is a browser; 3 where no API answers."""
    url = given.url or reached(api.url(None, os.environ))
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        raise ConfigError("url", url, "argument", "http://HOST:PORT or https://HOST:PORT")
    page = f"{url.rstrip('/')}/"
    problem = _problem(page)
    if problem:
        print(f"shm-monitor: no API at {printable(url)}: {printable(problem)}", file=sys.stderr)
        print("try: shm-monitor run, or beside a sampler: shm-monitor api; elsewhere: --url", file=sys.stderr)
        return exits.NO_SAMPLER
    print(page, flush=True)
    if not (has_screen(os.environ) and webbrowser.open(page)):
        print(f"no browser here; {_advice(page, os.environ)}", file=sys.stderr)
    return exits.FINE


def reached(url: str) -> str:
    """Return *url* with an address that can be connected to in the place of one that stands for all."""
    parts = urlsplit(url)
    host = EVERY_ADDRESS.get(parts.hostname or "")
    return url if host is None else f"{parts.scheme}://{host}:{parts.port}"


def has_screen(environ: Mapping[str, str]) -> bool:
    """Say whether a page can be seen: the dashboard needs more than a browser of a terminal."""
    return sys.platform == "darwin" or any(environ.get(key) for key in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def _advice(page: str, environ: Mapping[str, str]) -> str:
    parts = urlsplit(page)
    if not environ.get("SSH_CONNECTION"):
        return "open the address in one"
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"from where you sit: ssh -L {port}:{parts.hostname}:{port} {os.uname().nodename}"


def _problem(page: str) -> str:
    """Return why no API of ours answers at *page*; empty where one does."""
    try:
        with urllib.request.urlopen(f"{page}healthz", timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - checked above
            known = answer.read(64).startswith(b'{"status":"alive"')
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    return "" if known else "something else answers there"
