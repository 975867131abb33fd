"""``python -m shm_monitor_api``: what ``shm-monitor api`` and ``shm-monitor run`` start."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from collections.abc import Mapping, Sequence

import msgspec

import shm_monitor as sm
from shm_monitor.cli.parsing import Parser
from shm_monitor_api.logs import LEVELS
from shm_monitor_api.server import DEFAULT_BIND, Address, PortTakenError, Serving, serve
from shm_monitor_api.settings import BIND_VARIABLE, ApiConfig, read_token, said

USAGE = 2  # as everywhere in shm-monitor: what another start would not put right
DESCRIPTION = """\
Serve what a sampler measures over HTTP; the sampler need not run yet.

environment: SHM_MONITOR_NAME, SHM_MONITOR_BIND, SHM_MONITOR_TOKEN or SHM_MONITOR_TOKEN_FILE,
             SHM_MONITOR_ALLOWED_HOSTS (names, separated by commas)"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal asks to stop; return the exit status."""
    # uvicorn raises the signal again once it has stopped, and a stop that was asked for is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        serve(*settings(arguments, os.environ))
    except (sm.ConfigError, PortTakenError) as error:
        print(f"shm-monitor api: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        pass
    finally:
        gc.freeze()  # the end of the interpreter looks for no cycles: 0.02 s of CPU in place of 0.17
    return 0


def settings(arguments: Sequence[str] | None, environ: Mapping[str, str]) -> tuple[ApiConfig, Serving]:
    """Return what the command line says, and the environment where it says nothing.

    Raises:
        ConfigError: one of them cannot be obeyed.
    """
    made = parser()
    given, rest = made.parse_known_args(arguments)
    if rest:
        made.refuse(rest)
    found = ApiConfig.from_environ({**environ, "SHM_MONITOR_TOKEN_FILE": ""} if given.token_file else environ)
    config = msgspec.structs.replace(
        found,
        name=given.name or found.name,
        token=read_token(given.token_file) if given.token_file else found.token,
        allowed_hosts=(*found.allowed_hosts, *given.allow_host),
        insecure=given.insecure,
        max_event_clients=given.max_event_clients,
    )
    if (given.tls_cert is None) != (given.tls_key is None):
        raise sm.ConfigError("tls_key", given.tls_key, "argument", "--tls-cert and --tls-key go together")
    serving = Serving(
        address=Address.parse(given.bind or said(environ, BIND_VARIABLE) or DEFAULT_BIND),
        tls_cert=given.tls_cert,
        tls_key=given.tls_key,
        access_log=given.access_log,
        json_log=given.log_format == "json",
        log_level=given.log_level,
        stop_at_eof=given.stop_at_eof,
        only_check=given.check,
    )
    return config, serving


def parser() -> Parser:
    """Return the parser of the command line."""
    made = Parser(prog="shm-monitor api", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--name", help="of the sampler; else $SHM_MONITOR_NAME, else default")
    made.add_argument(
        "--bind", metavar="HOST:PORT", help=f"where to listen; else $SHM_MONITOR_BIND, else {DEFAULT_BIND}"
    )
    made.add_argument("--token-file", metavar="FILE", help="holds the token that clients must send")
    made.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="accept this Host header too")
    made.add_argument("--insecure", action="store_true", help="listen to other machines without a token")
    made.add_argument("--tls-cert", metavar="FILE", help="certificate chain (PEM): serve https")
    made.add_argument("--tls-key", metavar="FILE", help="its private key (PEM)")
    made.add_argument("--access-log", action="store_true", help="a line per request")
    made.add_argument("--log-format", choices=("text", "json"), default="text", help="of the lines on stderr")
    made.add_argument("--log-level", choices=LEVELS, default="info", help="default: info")
    made.add_argument("--max-event-clients", type=int, default=512, metavar="N", help="of /events; default: 512")
    made.add_argument("--check", action="store_true", help="say whether this could be served, and end: 0, or 2")
    made.add_argument("--stop-at-eof", action="store_true", help="stop when standard input ends")
    return made


if __name__ == "__main__":
    sys.exit(main())
