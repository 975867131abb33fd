"""What every request must pass before a route sees it: method, host, origin, token, body.

A monitor in this field collected 20 CVEs in one year by lacking these (CORS ``*``, DNS rebinding, no token).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from starlette.middleware import Middleware

from shm_monitor_api.problems import problem

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from shm_monitor_api.settings import ApiConfig

Headers = Mapping[bytes, bytes]

# uri-host [":" port] (RFC 9110, 7.2): an IPv6 address in brackets, else a name or an IPv4 address; nothing around it.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\]|([A-Za-z0-9._-]+))(?::[0-9]{0,5})?")

HEADERS = "shm_monitor_api.headers"  # key of the ASGI scope: the headers as a dict, so that nobody searches again
HEAD_BYTES_MAX = 16 * 1024
BODY_MAX_BYTES = 8192  # no route reads a body: a small one is ignored, as RFC 9110, 9.3.1 allows
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
OPEN_PATH = "/healthz"
CLOSE = {"connection": "close"}

_ONCE = (b"host", b"authorization", b"content-length", b"origin", b"sec-fetch-site", b"sec-fetch-mode")

_ON_EVERY_RESPONSE = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),  # nor may a page of another origin embed what it may not read
)


class Check(ABC):
    """ASGI middleware that refuses a request with a problem, or passes it on."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before *app*."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        refused = self.refusal(scope, headers_of(scope)) if scope["type"] == "http" else None
        await (refused or self._app)(scope, receive, send)

    @abstractmethod
    def refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """Return why this request is not served, or None."""


class SafeAnswers:
    """ASGI middleware: no answer may be taken for another type, or be embedded by a page of another origin."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before *app*."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_hardened(message: Message) -> None:
            # A 304 renews an answer that the client keeps with all its headers.
            if message["type"] == "http.response.start" and message["status"] != 304:
                message["headers"] = [*message["headers"], *_ON_EVERY_RESPONSE]
            await send(message)

        await self._app(scope, receive, send_hardened)


class WellFormed(Check):
    """Refuses what is too large or ambiguous, whoever sends it."""

    def refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """Return the problem of a request that is malformed."""
        malformed = _malformed(scope, headers)
        return None if malformed is None else problem(*malformed, instance=scope["path"], headers=CLOSE)


class LoopbackOnly(Check):
    """Refuses what did not arrive at a loopback address: without a token that could be anybody."""

    def refusal(self, scope: Scope, headers: Headers) -> Response | None:  # noqa: ARG002 - as every check
        """Return the problem of a request from elsewhere."""
        if is_local(scope.get("server")):
            return None
        detail = (
            "without a token only connections to a loopback address are served; "
            "set SHM_MONITOR_TOKEN or SHM_MONITOR_TOKEN_FILE for the API"
        )
        return problem(403, detail, instance=scope["path"], headers=CLOSE)


class KnownHost(Check):
    """Refuses the ``Host`` of another machine: DNS rebinding makes a browser send the attacker's."""

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        """Allow the loopback names, those *allowed*, and the address at which a request arrives."""
        super().__init__(app)
        self._hosts = frozenset(_spelled(host) for host in (*LOOPBACK_HOSTS, *allowed))

    def refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """Return the problem of a request for another host."""
        server = scope.get("server")
        name = _host_named(headers.get(b"host", b"").decode("latin-1"))
        if name in self._hosts or (name != "" and server is not None and name == _spelled(server[0])):
            return None
        detail = "the Host header names another machine; allow a name by --allow-host or SHM_MONITOR_ALLOWED_HOSTS"
        return problem(421, detail, instance=scope["path"], headers=CLOSE)


class SameOrigin(Check):
    """Refuses what a page of another origin asks for."""

    def refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """Return the problem of a request by such a page."""
        if not is_cross_origin(headers):
            return None
        return problem(403, "pages of another origin may not read this API", instance=scope["path"])


class TokenNeeded(Check):
    """Refuses who does not send the token."""

    def __init__(self, app: ASGIApp, token: str, open_paths: frozenset[str]) -> None:
        """Ask for *token*, but for *open_paths*."""
        super().__init__(app)
        self._token = token.encode()
        self._open_paths = open_paths

    def refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """Return the 401 of a request without the token."""
        if scope["path"] in self._open_paths or self._is_authorized(headers):
            return None
        return _unauthorized(headers, scope["path"])

    def _is_authorized(self, headers: Headers) -> bool:
        """Compare the token in constant time; a browser sends it as the password of Basic."""
        scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"basic":
            try:
                credentials = base64.b64decode(credentials, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() != b"bearer":
            return False
        return hmac.compare_digest(credentials.strip(), self._token)


class HeadAsGet:
    """ASGI middleware: HEAD is answered as GET, whose body the server drops; a stream would never end."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before *app*."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["method"] == "HEAD" and scope["path"] != "/events":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


def middleware(config: ApiConfig, open_paths: frozenset[str]) -> list[Middleware]:
    """Return what each request passes, from the outside in; *open_paths* need no token."""
    return [
        Middleware(SafeAnswers),
        Middleware(WellFormed),
        *([Middleware(LoopbackOnly)] if config.token is None and not config.insecure else []),
        Middleware(KnownHost, allowed=config.allowed_hosts),
        Middleware(SameOrigin),
        *([] if config.token is None else [Middleware(TokenNeeded, token=config.token, open_paths=open_paths)]),
        Middleware(HeadAsGet),
    ]


def headers_of(scope: Scope) -> Headers:
    """Return the headers of a request as a dict, which is made once."""
    if HEADERS not in scope:
        scope[HEADERS] = dict(scope["headers"])
    found: Headers = scope[HEADERS]
    return found


def is_local(server: tuple[str, int | None] | None) -> bool:
    """Say whether a connection arrived at a loopback address, or at a Unix socket; *server* is the ASGI one.

    A server that does not say where it arrived may have got it from anywhere.
    """
    return server is not None and (server[1] is None or is_loopback(server[0]))


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Say whether *host* is ``localhost`` or a loopback address."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def is_cross_origin(headers: Headers) -> bool:
    """Say whether a browser asks for a page of another origin; a navigation to one of ours may come from anywhere."""
    origin = headers.get(b"origin")
    if origin is not None and origin.partition(b"://")[2] != headers.get(b"host"):
        return True
    site = headers.get(b"sec-fetch-site", b"none")
    return site not in {b"none", b"same-origin"} and headers.get(b"sec-fetch-mode") != b"navigate"


def _malformed(scope: Scope, headers: Headers) -> tuple[int, str] | None:
    """Return status and detail for a request that is too large or ambiguous, whoever sends it."""
    received: Sequence[tuple[bytes, bytes]] = scope["headers"]
    if sum(len(name) + len(value) for name, value in received) > HEAD_BYTES_MAX:
        return 431, f"headers of more than {HEAD_BYTES_MAX} bytes"
    if len(headers) != len(received):
        names = [name for name, _ in received]
        if any(names.count(name) > 1 for name in _ONCE):
            return 400, "a header that may come once came twice"
    if not scope["query_string"].isascii():
        return 400, "a query is ASCII; write other characters as %XX (RFC 3986, 2.1)"
    if b"transfer-encoding" in headers or _length(headers) > BODY_MAX_BYTES:
        return 413, "no route takes a body: this API only reads"
    return None


@lru_cache(maxsize=256)
def _host_named(header: str) -> str:
    """Return the name or address in a ``Host`` header, without port, in one spelling; empty for what is none."""
    found = _HOST.fullmatch(header.strip())
    return _spelled(found[1] or found[2]) if found else ""


def _spelled(host: str) -> str:
    return host.strip("[]").lower().removesuffix(".")


def _length(headers: Headers) -> int:
    try:
        return int(headers.get(b"content-length", b"0"))
    except ValueError:
        return BODY_MAX_BYTES + 1


def _unauthorized(headers: Headers, path: str) -> Response:
    """Return the 401; where a browser shows a page, with the challenge that makes it ask for the token."""
    scheme = "Basic" if b"text/html" in headers.get(b"accept", b"") else "Bearer"
    detail = "send the token: Authorization: Bearer TOKEN; a browser takes it as the password of any user name"
    return problem(401, detail, instance=path, headers={"www-authenticate": f'{scheme} realm="shm-monitor"'})
