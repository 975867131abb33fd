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
from pathlib import Path
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
    from collections.abc import Callable, Iterator

    from shm_monitor.config.resource import ResourceConfig

    KeeperOf = Callable[[str], ApiKeeper | None]

_log = logging.getLogger("shm_monitor")

FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
FROM_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT)  # a terminal sends these to the command itself, too
TURN_SECONDS = 1.0
OOM_SCORE_ADJ = Path("/proc/self/oom_score_adj")
OOM_SCORE_MOST = 1000
COMMAND_SCORE = 500  # of 1,000: as if the command held half of all memory more than it does


def run(given: argparse.Namespace) -> int:
    """Run a sampler until SIGTERM or Ctrl-C, or for as long as a command takes."""
    config = settings.load(given)
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    if not any(command) and (command or given.has_dashes):  # run -- $CMD, which is not set
        print("shm-monitor: there is no command after --; try: shm-monitor run -- python train.py", file=sys.stderr)
        return exits.USAGE
    on_terminal = not command and sys.stdout.isatty() and not given.no_view
    quiet = on_terminal or bool(command)
    log_to_stderr(logging.WARNING if quiet else logging.INFO, "shm-monitor: %(message)s")
    keeper_of: KeeperOf = _no_keeper
    address = ""
    # Many commands may run beside each other, each with a sampler of its own: an API only where its port is given.
    if not given.no_api and (given.bind is not None or not command) and _is_installed(given.bind):
        environ = api.environment(given.env_file, os.environ)
        options = ["--log-level", "warning" if quiet else "info"]
        options += [] if given.bind is None else ["--bind", given.bind]
        if given.bind is not None and api.is_refused(api.command_line("--name", config.name, *options), environ):
            return exits.USAGE  # a sampler that runs without it would not be what was asked for
        keeper_of = partial(_keeper_of, options=options, environ=environ)
        address = api.url(given.bind, environ)
    if command:
        return run_command(config, command, keeper_of, adds_to_score=not given.no_oom_score)
    view = View(config.name, address) if on_terminal else None
    return run_sampler(config, partial(settings.load, given), view=view, keeper=keeper_of(config.name))


def _keeper_of(name: str, *, options: list[str], environ: dict[str, str]) -> ApiKeeper:
    """Return the keeper of an API process for the sampler *name*."""
    return ApiKeeper(api.command_line("--stop-at-eof", "--name", name, *options), environ)


def _no_keeper(_: str) -> ApiKeeper | None:
    """Return nothing: the sampler runs without an API."""
    return None


def run_sampler(
    config: ResourceConfig,
    load: Callable[[], ResourceConfig],
    *,
    view: View | None = None,
    keeper: ApiKeeper | None = None,
) -> int:
    """Keep a sampler alive until a signal asks to stop.

    SIGHUP loads the configuration again and keeps the history. On a terminal it stops: the terminal was closed.

    Args:
        config: of the sampler.
        load: loads it again.
        view: what shows the samples on a terminal, and stops all when it is closed.
        keeper: of the API process to run beside it.
    """
    signals = Signals(hangup_stops=any(map(_is_terminal, (0, 1, 2))))
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


def run_command(config: ResourceConfig, command: list[str], keeper_of: KeeperOf, *, adds_to_score: bool = True) -> int:
    """Run *command* beside a sampler and return its exit status, 128 + n where signal n ended it.

    Args:
        config: of the sampler, which has another name where a sampler of another cgroup has this one.
        command: what to run, and its arguments.
        keeper_of: makes the keeper of an API process for the sampler of a name, or nothing.
        adds_to_score: have the kernel kill the command's processes before the sampler when memory runs out.
    """
    signals = _Forwarding()  # before anything begins that a KeyboardInterrupt would leave behind
    with ResourceManager(config) as manager, keeper_of(manager.name) or contextlib.nullcontext():
        try:
            with _higher_score() if adds_to_score else contextlib.nullcontext():
                process = subprocess.Popen(command, env={**os.environ, names.NAME_VARIABLE: manager.name})
        except OSError as error:
            print(f"shm-monitor: {command[0]}: {error.strerror}", file=sys.stderr)
            return 127 if isinstance(error, FileNotFoundError) else 126  # as sh(1) does
        signals.pass_on_to(process)
        status = process.wait()
        return 128 - status if status < 0 else status


@contextlib.contextmanager
def _higher_score() -> Iterator[None]:
    """Let what is started in this context inherit a higher score for the kernel's choice of whom to kill.

    Source: proc_pid_oom_score_adj(5). A process without privileges may lower its own score to what it was.
    """
    try:
        before = int(OOM_SCORE_ADJ.read_text(encoding="ascii"))
        OOM_SCORE_ADJ.write_text(str(min(before + COMMAND_SCORE, OOM_SCORE_MOST)), encoding="ascii")
    except (OSError, ValueError):  # not Linux, or a sandbox that hides it
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            OOM_SCORE_ADJ.write_text(str(before), encoding="ascii")


def _is_installed(bind: str | None) -> bool:
    """Return whether an API can be had; where it cannot, a line of the log says so.

    Raises:
        MissingDependencyError: the packages of the API are not installed, and *bind* asks for it.
    """
    try:
        api.check_installed()
    except MissingDependencyError as error:
        if bind is not None:
            raise
        _log.info("without the REST API: %s", error)
        return False
    return True


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


class _Forwarding:
    """Passes on the signals that are meant for the command; it keeps those that come before the command runs."""

    def __init__(self) -> None:
        """Take the signals. A command inherits no handler."""
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []
        self._unheard = FROM_THE_TERMINAL if _is_foreground() else ()  # the command hears them from the terminal
        for number in (*FORWARDED, *FROM_THE_TERMINAL):
            signal.signal(number, self._take)

    def pass_on_to(self, process: subprocess.Popen[bytes]) -> None:
        """Send *process* the signals that came so far, and from now on those that come."""
        self._process = process
        for number in self._early:
            process.send_signal(number)

    def _take(self, number: int, frame: object) -> None:  # noqa: ARG002
        if self._process is None:
            self._early.append(number)
        elif number not in self._unheard:
            self._process.send_signal(number)


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:  # it is closed
        return False


def _is_foreground() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
