"""``shm-monitor run``: a sampler in the foreground, or one beside a command."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

from shm_monitor import exits
from shm_monitor.cli import api, settings
from shm_monitor.cli.view import View
from shm_monitor.errors import AlreadyRunningError, ConfigError, MissingDependencyError
from shm_monitor.manager import FORCE_CLOCK_VARIABLE, ResourceManager
from shm_monitor.segment import names
from shm_monitor.supervision.api_keeper import ApiKeeper
from shm_monitor.supervision.handshake import Order
from shm_monitor.supervision.log_lines import log_to_stderr
from shm_monitor.supervision.sd_notify import Notifier
from shm_monitor.supervision.supervisor import Supervisor

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from shm_monitor.config.resource import ResourceConfig

_log = logging.getLogger("shm_monitor")

FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
FROM_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT)  # a terminal sends these to the command itself, too
TURN_SECONDS = 1.0


def run(given: argparse.Namespace) -> int:
    """Run a sampler until SIGTERM or Ctrl-C, or for as long as a command takes."""
    config = settings.load(given)
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    if not any(command) and (command or given.has_dashes):  # run -- $CMD, which is not set
        print("shm-monitor: there is no command after --; try: shm-monitor run -- python train.py", file=sys.stderr)
        return exits.USAGE
    if given.bind is not None and not given.no_api and _is_refused(config, given):
        return exits.USAGE
    if command:
        # Many commands may run beside each other, each with a sampler of its own: an API only where its port is given.
        wanted = given.bind is not None and not given.no_api
        return run_command(config, command, _api_keeper(config, given, quiet=True) if wanted else None)
    on_terminal = sys.stdout.isatty() and not given.no_view
    log_to_stderr(logging.WARNING if on_terminal else logging.INFO, "shm-monitor: %(message)s")
    keeper = None if given.no_api else _api_keeper(config, given, quiet=on_terminal)
    load = partial(settings.load, given)
    view = View(config.name, api.url(given.bind, _environment(given)) if keeper else "") if on_terminal else None
    return run_sampler(config, load, view=view, keeper=keeper)


def run_sampler(
    config: ResourceConfig,
    load: Callable[[], ResourceConfig],
    *,
    view: View | None = None,
    keeper: ApiKeeper | None = None,
) -> int:
    """Keep a sampler alive until a signal asks to stop; SIGHUP loads the configuration again and keeps the history.

    Args:
        config: of the sampler.
        load: loads it again.
        view: what shows the samples on a terminal, and stops all when it is closed; a SIGHUP means that, too.
        keeper: of the API process to run beside it.
    """
    signals = Signals(hangup_stops=view is not None)
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
        if view is not None:
            view.start()
        while not signals.stop.wait(min(TURN_SECONDS, notifier.watchdog_seconds / 2)):
            notifier.alive()
            if signals.takes_reload():
                _reload(supervisor, load, config.name)
            if view is not None and view.has_ended():
                break
    finally:
        notifier.stopping()
        if view is not None:
            view.end()
        if keeper is not None:
            keeper.ask_to_stop()
        supervisor.stop()
        if keeper is not None:
            keeper.stop()
    return exits.FINE


def run_command(config: ResourceConfig, command: list[str], keeper: ApiKeeper | None = None) -> int:
    """Run *command* beside a sampler and return its exit status, 128 + n where signal n ended it."""
    log_to_stderr(logging.WARNING, "shm-monitor: %(message)s")
    with ResourceManager(config), keeper or contextlib.nullcontext():
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
    return ApiKeeper(api.command_line(*options), _environment(given))


def _is_refused(config: ResourceConfig, given: argparse.Namespace) -> bool:
    """Return whether an API could not be had as asked for; a sampler that runs without it would not be what was asked.

    Raises:
        MissingDependencyError: the packages of the API are not installed.
    """
    api.check_installed()
    command = api.command_line("--name", config.name, "--bind", given.bind)
    return api.is_refused(command, _environment(given))


def _environment(given: argparse.Namespace) -> dict[str, str]:
    return api.environment(given.env_file, os.environ)


def _order(config: ResourceConfig) -> Order:
    return Order(config=config, owner_pid=os.getpid(), force_clock=os.environ.get(FORCE_CLOCK_VARIABLE) == "1")


class Signals:
    """What the signals ask of a running sampler.

    Attributes:
        stop: set by SIGTERM and SIGINT.
    """

    def __init__(self, *, hangup_stops: bool) -> None:
        """Take the signals; SIGHUP stops, or asks for a reload."""
        self.stop = threading.Event()
        self._reload = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: self.stop.set())
        signal.signal(signal.SIGINT, lambda *_: self.stop.set())
        signal.signal(signal.SIGHUP, lambda *_: (self.stop if hangup_stops else self._reload).set())

    def takes_reload(self) -> bool:
        """Return whether a reload was asked for since the last call."""
        asked = self._reload.is_set()
        self._reload.clear()
        return asked


def _reload(supervisor: Supervisor, load: Callable[[], ResourceConfig], name: str) -> None:
    """Have a sampler with the configuration of now take over; a wrong one changes nothing."""
    try:
        config = load()
    except ConfigError as error:
        _log.error("not reloaded: %s", error)
        return
    if config.name != name:
        _log.error(
            "not reloaded: the name is now %r, and a sampler keeps its own (%r); restart instead", config.name, name
        )
        return
    supervisor.reload(_order(config))


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
