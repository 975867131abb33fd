"""``shm-monitor run``: a sampler in the foreground, or one beside a command."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from shm_monitor import names
from shm_monitor.cli import api, exits, settings
from shm_monitor.cli.api_keeper import ApiKeeper
from shm_monitor.cli.live import LiveView
from shm_monitor.errors import AlreadyRunningError, MissingDependencyError
from shm_monitor.handshake import Order
from shm_monitor.manager import FORCE_CLOCK_VARIABLE, ResourceManager
from shm_monitor.reader import Reader, attach
from shm_monitor.sd_notify import Notifier
from shm_monitor.supervisor import Supervisor

if TYPE_CHECKING:
    import argparse

    from shm_monitor.config import ResourceConfig

_log = logging.getLogger("shm_monitor")

FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
FROM_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT)  # a terminal sends these to the command itself, too
TURN_SECONDS = 1.0


def run(given: argparse.Namespace) -> int:
    """Run a sampler until SIGTERM or Ctrl-C, or for as long as a command takes."""
    config = settings.load(given)
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    if command:
        return run_command(config, command)
    on_terminal = sys.stdout.isatty() and not given.no_view
    logging.basicConfig(
        level=logging.WARNING if on_terminal else logging.INFO, format="shm-monitor: %(message)s", stream=sys.stderr
    )
    keeper = None if given.no_api else _api_keeper(config, given, quiet=on_terminal)
    return run_sampler(config, live=on_terminal, keeper=keeper)


def run_sampler(config: ResourceConfig, *, live: bool, keeper: ApiKeeper | None = None) -> int:
    """Keep a sampler alive until a signal asks to stop; on a terminal, show what it measures.

    Args:
        config: of the sampler.
        live: draw on stdout, a terminal.
        keeper: of the API process to run beside it.
    """
    stop = _stop_on_signals()
    supervisor = Supervisor(_order(config))
    try:
        supervisor.start()
    except AlreadyRunningError as error:
        print(f"shm-monitor: {error}", file=sys.stderr)
        return exits.USAGE
    notifier = Notifier(os.environ)
    try:
        if keeper is not None:
            keeper.start()
        notifier.ready()
        with attach(config.name, required=False) as reader:
            _until(stop, reader, notifier, LiveView(sys.stdout) if live else None)
    finally:
        notifier.stopping()
        if keeper is not None:
            keeper.ask_to_stop()
        supervisor.stop()
        if keeper is not None:
            keeper.stop()
    return exits.FINE


def run_command(config: ResourceConfig, command: list[str]) -> int:
    """Run *command* beside a sampler and return its exit status, 128 + n where signal n ended it."""
    logging.basicConfig(level=logging.WARNING, format="shm-monitor: %(message)s", stream=sys.stderr)
    with ResourceManager(config):
        try:
            process = subprocess.Popen(command, env={**os.environ, names.NAME_VARIABLE: config.name})
        except OSError as error:
            print(f"shm-monitor: {command[0]}: {error.strerror}", file=sys.stderr)
            return 127 if isinstance(error, FileNotFoundError) else 126  # as sh(1) does
        _forward_signals_to(process)
        status = process.wait()
        return 128 - status if status < 0 else status


def _api_keeper(config: ResourceConfig, given: argparse.Namespace, *, quiet: bool) -> ApiKeeper | None:
    """Return what keeps an API beside the sampler; None, and a line that says so, where it is not installed."""
    try:
        api.check_installed()
    except MissingDependencyError as error:
        _log.info("without the REST API: %s", error)
        return None
    options = ["--stop-at-eof", "--name", config.name, "--log-level", "warning" if quiet else "info"]
    options += ["--bind", given.bind] if given.bind else []
    return ApiKeeper(api.command_line(*options), api.environment(given.env_file, os.environ))


def _order(config: ResourceConfig) -> Order:
    return Order(config=config, owner_pid=os.getpid(), force_clock=os.environ.get(FORCE_CLOCK_VARIABLE) == "1")


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _until(stop: threading.Event, reader: Reader, notifier: Notifier, view: LiveView | None) -> None:
    """Turn once a second until *stop*: tell systemd that we live, show the newest sample."""
    while not stop.wait(min(TURN_SECONDS, notifier.watchdog_seconds / 2)):
        notifier.alive()
        if view is not None:
            view.show(reader)
    if view is not None:
        view.end()


def _forward_signals_to(process: subprocess.Popen[bytes]) -> None:
    """Pass on the signals that are meant for the command."""

    def forward(number: int, frame: object) -> None:  # noqa: ARG001
        if process.poll() is None:
            process.send_signal(number)

    for number in FORWARDED:
        signal.signal(number, forward)
    for number in FROM_THE_TERMINAL:
        signal.signal(number, signal.SIG_IGN if _is_foreground() else forward)


def _is_foreground() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
