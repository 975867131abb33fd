"""What the API is told: whose samples to serve, to whom, and how much of it at once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Self

import msgspec

import shm_monitor as sm
from shm_monitor.config.origins import uncommented
from shm_monitor.config.text import reason_of, text_of

NAME_VARIABLE = "SHM_MONITOR_NAME"
BIND_VARIABLE = "SHM_MONITOR_BIND"
TOKEN_VARIABLE = "SHM_MONITOR_TOKEN"  # noqa: S105 - names of variables, not their values
TOKEN_FILE_VARIABLE = "SHM_MONITOR_TOKEN_FILE"  # noqa: S105
HOSTS_VARIABLE = "SHM_MONITOR_ALLOWED_HOSTS"
TOKEN_MIN_LENGTH = 16  # 96 bits where it is base64; below that a token can be guessed over a network
_TOKEN_ALLOWED = re.compile(r"[!-~]*")  # what a header can carry: visible ASCII, no blanks (RFC 9110, 5.5)
_HOST_ALLOWED = re.compile(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?")


class ApiConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to serve one sampler.

    Args:
        name: of the sampler; None for ``SHM_MONITOR_NAME``, else ``default``.
        token: what a client sends as ``Authorization: Bearer``; None asks for none, and then only connections that
            arrive at a loopback address are served.
        allowed_hosts: names that the ``Host`` header may have beside the loopback ones and the address itself.
        insecure: serve every address without a token.
        max_event_clients: how many may listen to ``/events`` at once.
        history_values_max: how many numbers one answer of ``/history`` may hold; a quarter of a million takes 80 ms,
            in which nobody else is answered.

    Raises:
        ConfigError: a token that is too short or cannot be sent; a host that is none.
    """

    name: str | None = None
    token: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    insecure: bool = False
    max_event_clients: int = 512
    history_values_max: int = 250_000

    def __post_init__(self) -> None:
        if self.token is not None:
            check_token(self.token, "argument")
        for host in self.allowed_hosts:
            if not _HOST_ALLOWED.fullmatch(host):
                raise sm.ConfigError("allowed_hosts", host, "argument", "a host name or address, without a port")

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Return the settings that the environment gives: the name, the token or its file, further hosts.

        Raises:
            ConfigError: the token is unusable, or its file cannot be read.
        """
        found = os.environ if environ is None else environ
        hosts = tuple(host.strip() for host in said(found, HOSTS_VARIABLE).split(",") if host.strip())
        return cls(name=said(found, NAME_VARIABLE) or None, token=token_from(found), allowed_hosts=hosts)


def said(environ: Mapping[str, str], key: str) -> str:
    """Return what *environ* says of *key*, read as settings are: ``docker --env-file`` keeps quotes."""
    return uncommented(environ.get(key, ""))


def token_from(environ: Mapping[str, str]) -> str | None:
    """Return the token that *environ* gives, itself or by its file; None where it gives none.

    Raises:
        ConfigError: both are given; the file cannot be read; the token is too short or cannot be sent.
    """
    token, path = said(environ, TOKEN_VARIABLE), said(environ, TOKEN_FILE_VARIABLE)
    if token and path:
        raise sm.ConfigError(TOKEN_FILE_VARIABLE, path, "environment", f"not together with {TOKEN_VARIABLE}")
    if path:
        return read_token(path)
    if not token:
        return None
    check_token(token, f"environment, {TOKEN_VARIABLE}")
    return token


def read_token(path: str) -> str:
    """Return the token in the file *path*, without the line end after it.

    Raises:
        ConfigError: it cannot be read, or holds no usable token.
    """
    try:
        token = text_of(path).strip()
    except (OSError, ValueError) as error:
        raise sm.ConfigError("token file", path, "argument", f"must be a readable file: {reason_of(error)}") from None
    check_token(token, path)
    return token


def check_token(token: str, origin: str) -> None:
    """Raise ``ConfigError``, which never shows the token, where *token* is too short or cannot be sent."""
    if len(token) < TOKEN_MIN_LENGTH or not _TOKEN_ALLOWED.fullmatch(token):
        raise sm.ConfigError(
            "token",
            f"({len(token)} characters)",
            origin,
            f"at least {TOKEN_MIN_LENGTH} visible ASCII characters, such as those of: openssl rand -base64 24",
        )
