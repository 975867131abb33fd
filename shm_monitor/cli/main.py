"""Parse the command line and hand over to the verb; every verb is a function of its arguments in its own module."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from shm_monitor import __version__, exits
from shm_monitor.cli.parsing import Parser
from shm_monitor.errors import (
    ConfigError,
    MissingDependencyError,
    MonitorError,
    TraceError,
    UnknownLimitError,
    UnknownMetricError,
)
from shm_monitor.segment import names
from shm_monitor.units import printable_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

DESCRIPTION = """\
One sampler measures CPU, memory, GPU and network; any number of workers ask should_prune() in nanoseconds.

exit status: 0 fine, 1 prune, 2 wrong usage or configuration, 3 no live sampler"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    _have_standard_streams()
    top = parser()
    words = list(sys.argv[1:] if arguments is None else arguments)
    given, rest = top.parse_known_args(words)
    if rest and not given.passes_on:
        given.parser.refuse(rest)
    given.rest, given.has_dashes = rest, "--" in words  # whether argparse hands "--" on depends on its version
    try:
        status = _done(given, words[0])
    except (ConfigError, MissingDependencyError, TraceError, UnknownLimitError, UnknownMetricError) as error:
        return _failed(error, exits.USAGE)
    except MonitorError as error:
        return _failed(error, exits.NO_SAMPLER)
    except BrokenPipeError:
        # Who read our output has gone (`shm-monitor list | head -1`): be quiet, as the signal would be.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (OSError, RuntimeError, MemoryError, ImportError) as error:
        refused = _refusal(error)
        if refused is None:
            raise
        return _failed(refused, exits.NO_SAMPLER)
    return status


def _done(given: argparse.Namespace, word: str) -> int:
    """Do what the verb, written as *word*, does; return its status.

    Raises:
        MissingDependencyError: a package that it needs is not installed.
    """
    try:
        status = int(_verb(given.module)(given))
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of(f"shm-monitor {word}", error) from error
    sys.stdout.flush()
    return status


def _have_standard_streams() -> None:
    """Open /dev/null in the place of each standard stream that is closed, as after ``>&-``.

    Else the next file that is opened takes its number, and what is printed goes there.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, "r" if name == "stdin" else "w", closefd=False, encoding="utf-8"))  # noqa: SIM115


def _refusal(error: BaseException) -> MonitorError | None:
    from shm_monitor.supervision.refusals import refusal

    return refusal(error, "this command cannot go on")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    top = Parser(prog="shm-monitor", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("-V", "--version", action="version", version=f"shm-monitor {__version__}")
    verbs = top.add_subparsers(required=True, metavar="COMMAND")
    _add_run(verbs)
    _add_api(verbs)
    _add_top(verbs)
    _add_looks(verbs)
    _add_traces(verbs)
    _add_inject(verbs)
    _add_housekeeping(verbs)
    _add_config(verbs)
    _add_desk(verbs)
    return top


def _add_run(verbs: argparse._SubParsersAction[Parser]) -> None:
    run = _verb_parser(verbs, "run", "run:run", "run a sampler in the foreground, or beside a command: run -- CMD ...")
    _config_options(run)
    run.add_argument("--no-api", action="store_true", help="the sampler alone, without the REST API beside it")
    run.add_argument("--bind", metavar="HOST:PORT", help="where the REST API listens (shm-monitor api --help)")
    run.add_argument("--no-view", action="store_true", help="log lines instead of the live view of a terminal")
    run.add_argument(
        "--no-oom-score",
        action="store_true",
        help="leave CMD's oom_score_adj; else it is raised by 500, to spare the sampler",
    )
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD", help="run CMD with SHM_MONITOR_NAME set")


def _add_api(verbs: argparse._SubParsersAction[Parser]) -> None:
    # Its options belong to the API process, which this command becomes: `--help` is answered there, too.
    api = verbs.add_parser("api", help="serve what a sampler measures over HTTP", add_help=False, allow_abbrev=False)
    api.add_argument("--env-file", metavar="FILE")
    api.set_defaults(module="api:api", passes_on=True)


def _add_top(verbs: argparse._SubParsersAction[Parser]) -> None:
    top = _verb_parser(verbs, "top", "top:top", "show one sampler on the whole screen (extra: tui)")
    where = top.add_mutually_exclusive_group()
    _add_name(where)
    where.add_argument("--url", metavar="URL", help="of an API, here or elsewhere; its token: $SHM_MONITOR_TOKEN")
    top.add_argument("--once", action="store_true", help="print one frame and end: 0, or 3 without a live sampler")
    top.add_argument("--plain", action="store_true", help="a line per change in place of the full screen")
    top.add_argument("--width", type=int, metavar="CELLS", help="of the frame that --once prints")
    top.add_argument("--api-url", help=argparse.SUPPRESS)  # what `run` serves beside it


def _add_looks(verbs: argparse._SubParsersAction[Parser]) -> None:
    snapshot = _verb_parser(verbs, "snapshot", "look:snapshot", "print the newest sample")
    formats = snapshot.add_mutually_exclusive_group()
    _add_json(formats)
    formats.add_argument("--msgpack", action="store_true", help="as MessagePack")
    check = _verb_parser(verbs, "check", "look:check", "exit with 0 fine, 1 prune, 3 no live sampler")
    check.add_argument(
        "--watch",
        action="append",
        metavar="LIMIT",
        help="memory, cpu, network, gpu, gpu:3, ...; several with commas between",
    )
    status = _verb_parser(verbs, "status", "look:status", "is the sampler alive, and how are its collectors?")
    schema = _verb_parser(verbs, "schema", "look:schema", "print every metric: name, unit, help, source")
    episodes = _verb_parser(verbs, "episodes", "episodes:episodes", "when did pressure begin and end? also of the past")
    episodes.add_argument("--since", metavar="WHEN", help="only what came later: 90s, 10m, 2h, 1d ago, or unix seconds")
    episodes.add_argument("--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    episodes.add_argument("--json", action="store_true", help="as JSON, one object a line")
    for one in (snapshot, check, status, schema, episodes):
        _add_name(one)
    for one in (check, status, schema):
        _add_json(one)


def _add_traces(verbs: argparse._SubParsersAction[Parser]) -> None:
    record = _verb_parser(verbs, "record", "traces:record", "append what is measured to a file, until Ctrl-C")
    record.add_argument("file", metavar="FILE", help="made where it is missing; gone on with where it is not")
    _add_name(record)
    record.add_argument("--once", action="store_true", help="only what the ring has now, of a dead sampler too")
    record.add_argument("--seconds", type=float, help="stop after so many")
    record.add_argument("--everything", action="store_true", help="every metric, not only those that decide")
    replay = _verb_parser(verbs, "replay", "traces:replay", "what would have been decided over a recorded trace?")
    replay.add_argument("file", metavar="FILE", help="of `record`, or a .csv: time,metric,...")
    replay.add_argument("--against", metavar="OTHER.env", help="compare with the configuration in this file")
    replay.add_argument("--html", metavar="OUT", help="write a page of charts; with --against both beside each other")
    _add_json(replay)
    _config_options(replay)


def _add_inject(verbs: argparse._SubParsersAction[Parser]) -> None:
    inject = _verb_parser(verbs, "inject", "inject:inject", "false readings for a while, to try how workers react")
    inject.add_argument("readings", nargs="*", metavar="METRIC=NUMBER", help="memory_percent=97, gpu:0.power_watts=300")
    inject.add_argument("--seconds", type=float, default=10.0, help="for how long (default: %(default)g)")
    inject.add_argument("--end", action="store_true", help="take back what is injected now")
    _add_name(inject)


def _add_housekeeping(verbs: argparse._SubParsersAction[Parser]) -> None:
    listing = _verb_parser(verbs, "list", "housekeeping:list_all", "list the samplers of this user")
    _add_json(listing)
    clean = _verb_parser(verbs, "clean", "clean:clean", "remove what is yours, dead, and at least a minute old")
    clean.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    _add_json(clean)
    doctor = _verb_parser(verbs, "doctor", "housekeeping:doctor", "say what can be measured here, and why not the rest")
    _add_json(doctor)


def _add_config(verbs: argparse._SubParsersAction[Parser]) -> None:
    config = verbs.add_parser("config", help="look at the configuration")
    shown = config.add_subparsers(required=True, metavar="COMMAND")
    show = _verb_parser(shown, "show", "settings:show", "print each effective value and where it came from")
    _add_json(show)
    _config_options(show)
    init = _verb_parser(shown, "init", "template:init", "write a .env with every setting in it, as comments")
    init.add_argument("-o", "--output", default=".env", metavar="FILE", help="never overwritten; - for stdout")


def _add_desk(verbs: argparse._SubParsersAction[Parser]) -> None:
    shown = _verb_parser(verbs, "open", "open:open_dashboard", "open the dashboard of a running API in the browser")
    shown.add_argument("--url", help="of the API; else where $SHM_MONITOR_BIND says, else http://127.0.0.1:8909")
    completion = _verb_parser(verbs, "completion", "completion:completion", "print what a shell needs to complete")
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help='bash, zsh: eval "$(...)"; fish: | source')


def _config_options(one: argparse.ArgumentParser) -> None:
    _add_name(one)
    one.add_argument("--env-file", metavar="FILE", help="read this file instead of searching for a .env")
    one.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting, such as max_memory_usage_mb=4096; stronger than the environment and the file",
    )


def _add_name(one: argparse._ActionsContainer) -> None:
    one.add_argument("--name", help=f"of the sampler; else ${names.NAME_VARIABLE}, else {names.DEFAULT_NAME}")


def _add_json(one: argparse._ActionsContainer) -> None:
    one.add_argument("--json", action="store_true", help="as JSON")


def _verb_parser(
    verbs: argparse._SubParsersAction[Parser], name: str, module: str, help_text: str
) -> argparse.ArgumentParser:
    made = verbs.add_parser(name, help=help_text, description=help_text)
    made.set_defaults(module=module, parser=made, passes_on=False)
    return made


def _verb(path: str) -> _Verb:
    """Return the function of a verb; its module is loaded only now, for ``check`` runs often."""
    module, _, function = path.partition(":")
    verb: _Verb = getattr(import_module(f"shm_monitor.cli.{module}"), function)
    return verb


def _failed(error: MonitorError, status: int) -> int:
    print(f"shm-monitor: {printable_lines(str(error))}", file=sys.stderr)
    return status


if TYPE_CHECKING:
    from collections.abc import Callable

    _Verb = Callable[[argparse.Namespace], int]
