"""Serve on a socket of our own: where it may listen, with which limits, and what is logged."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
from typing import TYPE_CHECKING

import msgspec
import uvicorn

import shm_monitor as sm
from shm_monitor.units import printable
from shm_monitor_api.application import create_app
from shm_monitor_api.guard import HEAD_BYTES_MAX, is_loopback
from shm_monitor_api.listeners import listener_on
from shm_monitor_api.logs import log_config
from shm_monitor_api.settings import ApiConfig

if TYPE_CHECKING:
    from fastapi import FastAPI

DEFAULT_BIND = "127.0.0.1:8909"
# Of each connection, which takes them over from the listener: what a client sends ahead or does not read stays in the
# kernel, up to 6 and 4 MB each by default, and counts as memory of this process's cgroup.
_BUFFERS = ((socket.SO_RCVBUF, 32 * 1024), (socket.SO_SNDBUF, 128 * 1024))
BACKLOG = 128  # of connections that the kernel keeps until they are accepted
CONNECTIONS_MAX = 2**16  # where the number of open files has no limit
FILES_KEPT = 64  # for all but connections
KEEP_ALIVE_SECONDS = 10  # a connection that has been answered waits so long for its next request
UNREAD_SECONDS = 20  # the kernel ends a connection whose client reads nothing for as long: tcp(7), Linux only
STOP_SECONDS = 1  # what is not sent by then, when the server stops, is not sent
_log = logging.getLogger("shm_monitor.api")


class Address(msgspec.Struct, frozen=True):
    """Where to listen: one address of this machine, or all of them (``0.0.0.0``, ``::``)."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address that ``HOST:PORT`` or ``[IPv6]:PORT`` names; port 0 is any free one.

        Raises:
            ConfigError: *text* is neither.
        """
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not colon or not host or (":" in host and not bracketed) or not (port.isascii() and port.isdigit()):
            raise sm.ConfigError("bind", text, "argument", "HOST:PORT, such as 127.0.0.1:8909 or [::1]:8909")
        if int(port) > 65535:
            raise sm.ConfigError("bind", text, "argument", "a port of 0 to 65535")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        """Return ``HOST:PORT``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """How to listen.

    Args:
        address: where.
        tls_cert: the file of the certificate chain; None for plain HTTP.
        tls_key: the file of its key.
        access_log: a line per request.
        json_log: lines of JSON in place of text.
        log_level: of uvicorn's and our own lines.
        stop_at_eof: stop when standard input ends, which is when the parent ended.
        only_check: do everything short of listening.
    """

    address: Address
    tls_cert: str | None = None
    tls_key: str | None = None
    access_log: bool = False
    json_log: bool = False
    log_level: str = "info"
    stop_at_eof: bool = False
    only_check: bool = False


class PortTakenError(sm.MonitorError):
    """Another process listens there."""

    def __init__(self, address: Address) -> None:
        who = listener_on(address.host, address.port) or "another process"
        super().__init__(f"{address} is taken by {printable(who)}; try: shm-monitor api --bind 127.0.0.1:0")
        self.address = address


def serve(config: ApiConfig, serving: Serving) -> None:
    """Serve until SIGTERM or SIGINT; then end within 2 s.

    Raises:
        ConfigError: the settings contradict each other, or open the API to others without a token.
        PortTakenError: somebody else listens there.
    """
    check_exposure(config, serving.address)
    host = serving.address.host
    hosts = config.allowed_hosts if is_unspecified(host) else (*config.allowed_hosts, host)
    connections_max = allowed_connections()
    clients = event_clients(config.max_event_clients, connections_max)
    app = create_app(msgspec.structs.replace(config, allowed_hosts=hosts, max_event_clients=clients))
    settings = _uvicorn_settings(app, serving, connections_max)
    if serving.only_check:
        return
    listener = listen(serving.address)
    if clients < config.max_event_clients:
        _log.warning("at most %d clients of /events: others need connections too, and few files may be open", clients)
    scheme = "https" if serving.tls_cert else "http"
    server = _Server(settings, f"{scheme}://{Address(serving.address.host, listener.getsockname()[1])}")
    asyncio.run(_served(server, listener, stop_at_eof=serving.stop_at_eof))


def _uvicorn_settings(app: FastAPI, serving: Serving, connections_max: int) -> uvicorn.Config:
    settings = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=log_config(json=serving.json_log, level=serving.log_level),
        access_log=serving.access_log,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        limit_concurrency=connections_max,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        ssl_certfile=serving.tls_cert,
        ssl_keyfile=serving.tls_key,
    )
    try:
        settings.load()
    except OSError as error:  # ssl.SSLError is one
        raise sm.ConfigError("tls_cert", serving.tls_cert, "argument", f"cannot be used: {error}") from None
    return settings


def allowed_connections() -> int:
    """Return how many connections there may be: as many as the soft limit of open files leaves."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_MAX if soft == resource.RLIM_INFINITY else max(soft - FILES_KEPT, 2)


def event_clients(wanted: int, connections_max: int) -> int:
    """Return how many may listen to ``/events``: at most half of all connections, so that others are served."""
    return min(wanted, max(connections_max // 2, 1))


def check_exposure(config: ApiConfig, address: Address) -> None:
    """Raise ``ConfigError`` where anybody on the network could read what the API serves."""
    if config.token is None and not config.insecure and not is_loopback(address.host):
        raise sm.ConfigError(
            "bind",
            str(address),
            "argument",
            "other machines could read it without a token: set SHM_MONITOR_TOKEN_FILE or SHM_MONITOR_TOKEN, "
            "or say --insecure if that is meant",
        )


def is_unspecified(host: str) -> bool:
    """Say whether *host* stands for all addresses of this machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def listen(address: Address) -> socket.socket:
    """Return a socket that is bound to *address*.

    Raises:
        PortTakenError: it is taken.
        ConfigError: this machine has no such address, or may not listen there.
    """
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
        # With the protocol named: asyncio sets TCP_NODELAY only then, and without it each answer took 44 ms.
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise sm.ConfigError("bind", str(address), "argument", error.strerror or str(error)) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        for option, size in _BUFFERS:
            listener.setsockopt(socket.SOL_SOCKET, option, size)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_SECONDS * 1000)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(address) from None
        raise sm.ConfigError("bind", str(address), "argument", error.strerror or str(error)) from None
    return listener


def stop_at_end_of(fd: int) -> None:
    """Stop this process, as SIGTERM would, when *fd* ends; the running event loop watches it.

    A thread that reads ``sys.stdin`` would hold its lock until the interpreter ends, which aborts the process then.
    """

    def look() -> None:
        try:
            if os.read(fd, 4096):
                return
        except OSError:  # a terminal that hung up
            pass
        loop.remove_reader(fd)
        signal.raise_signal(signal.SIGTERM)

    loop = asyncio.get_running_loop()
    try:
        loop.add_reader(fd, look)
    except (OSError, ValueError):  # closed, /dev/null or a file: nobody holds the other end
        signal.raise_signal(signal.SIGTERM)


class _Server(uvicorn.Server):
    """Says where it listens when a signal that stops it no longer meets it half started."""

    def __init__(self, config: uvicorn.Config, url: str) -> None:
        super().__init__(config)
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _log.info("listening on %s", self._url)


async def _served(server: uvicorn.Server, listener: socket.socket, *, stop_at_eof: bool) -> None:
    if stop_at_eof:
        stop_at_end_of(-1 if sys.stdin is None else sys.stdin.fileno())
    await server.serve(sockets=[listener])
