"""What a person sees: the dashboard, and the documentation with assets of an installed package, no CDN.

Swagger UI comes from the package ``fastapi-offline``: MIT, two files that are byte for byte those of swagger-ui-dist.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from shm_monitor_api.problems import problem

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

STATIC = Path(__file__).parent / "static"
SLICE_BYTES = 16 * 1024
SWAGGER_PACKAGE = "fastapi_offline"
SWAGGER_FILES = ("swagger-ui-bundle.js", "swagger-ui.css")

POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
DOCS_POLICY = f"{POLICY}; style-src 'self' 'unsafe-inline'; img-src 'self' data:"  # Swagger UI styles itself inline
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class Page:
    """One file of this package, read once: its bytes, type and tag."""

    def __init__(self, name: str, policy: str = POLICY) -> None:
        path = STATIC / name
        self._body = path.read_bytes()
        self._etag = f'"{hashlib.sha256(self._body).hexdigest()[:16]}"'
        self._media = _TYPES[path.suffix]
        self._headers = {
            "etag": self._etag,
            "cache-control": "no-cache",
            "content-security-policy": policy,
            "referrer-policy": "no-referrer",
        }

    async def get(self, request: Request) -> Response:
        """Return the file, or that the client has it already."""
        if request.headers.get("if-none-match") == self._etag:
            return Response(status_code=304, headers=self._headers)
        return Response(self._body, headers=self._headers, media_type=self._media)


class Asset:
    """One file of Swagger UI, which may not be installed."""

    def __init__(self, name: str) -> None:
        self._path = swagger_path(name)
        self._content: mmap.mmap | None = None

    async def get(self, request: Request) -> Response:
        """Return the file; 404 with what to install where there is none."""
        if self._path is None:
            detail = 'Swagger UI is not installed; try: pip install "shm-monitor[api]", or read /openapi.json'
            return problem(404, detail, instance=request.scope["path"])
        if self._content is None:
            with self._path.open("rb") as file:
                self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return InSlices(self._content, _TYPES[self._path.suffix])


class InSlices(Response):
    """A large file, sent as fast as its reader takes it, and always whole.

    Starlette's FileResponse has each slice read by a thread, of which there are 40, and obeys ``Range``: 200 clients
    that asked and did not read cost 50 MB, and 1,500 ranges in one request 0.67 s.
    """

    def __init__(self, content: mmap.mmap, media: str) -> None:
        length = str(len(content))
        super().__init__(media_type=media, headers={"cache-control": "max-age=86400", "content-length": length})
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as every response
        """Send the file."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        end = len(self._content)
        for at in range(0, end, SLICE_BYTES):
            part = self._content[at : at + SLICE_BYTES]
            await send({"type": "http.response.body", "body": part, "more_body": at + SLICE_BYTES < end})


def swagger_path(name: str) -> Path | None:
    """Return where the file *name* of Swagger UI is installed, without importing the package that brings it."""
    spec = find_spec(SWAGGER_PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(place) / "static" / name
        if path.is_file():
            return path
    return None


def pages() -> dict[str, Callable[[Request], Awaitable[Response]]]:
    """Return the dashboard and the documentation; each path is one file, so there is no folder to leave."""
    files = (
        ("/", "dashboard.html", POLICY),
        ("/dashboard.js", "dashboard.js", POLICY),
        ("/dashboard.css", "dashboard.css", POLICY),
        ("/icon.svg", "icon.svg", POLICY),
        ("/icon-dead.svg", "icon-dead.svg", POLICY),
        ("/docs", "docs.html", DOCS_POLICY),
        ("/docs/start.js", "docs.js", DOCS_POLICY),
    )
    ours: dict[str, Callable[[Request], Awaitable[Response]]] = {
        path: Page(name, policy).get for path, name, policy in files
    }
    return ours | {f"/docs/{name}": Asset(name).get for name in SWAGGER_FILES}
