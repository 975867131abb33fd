"""What a person sees: the dashboard, and the documentation with assets of installed packages, no CDN.

Swagger UI comes from the package ``fastapi-offline``: MIT, two files that are byte for byte those of swagger-ui-dist.
plotly.js comes from the package ``plotly``, which is 5 MB of it; its charts are those of ``shm-monitor replay --html``.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import mmap
import re
import threading
from collections.abc import Awaitable, Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

import shm_monitor as sm
from shm_monitor.errors import install_command
from shm_monitor_api.problems import problem

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

Pages = dict[str, Callable[[Request], Awaitable[Response]]]

STATIC = Path(__file__).parent / "static"
SLICE_BYTES = 16 * 1024
SWAGGER_PACKAGE = "fastapi_offline"
DASHBOARD_FILES = (
    "dashboard.css",
    "dashboard.js",
    "cards.js",
    "charts.js",
    "format.js",
    "link.js",
    "store.js",
    "tables.js",
    "what-if.js",
    "icon.svg",
    "icon-dead.svg",
)
SWAGGER_FILES = ("swagger-ui-bundle.js", "swagger-ui.css")

PLOTLY_FILE = "package_data/plotly.min.js"
FIGURES = Path(sm.__file__).parent / "traces" / "figures.js"

POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_NOTHING = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"  # the hash of an empty style
_SHARP = "'sha256-AR/cKIZjWPcPmBUPDA6oti9XBiTbJvz0Cro2J1VzzS8='"  # "image-rendering: ... pixelated; " of a heat map
# plotly.js writes styles: two elements that are empty when they come, the style attribute of a heat map, which is an
# image, and an empty one on its scale. The hashes allow these and no other; scripts come from files alone.
CHARTS_POLICY = (
    f"{POLICY}; style-src 'self' {_NOTHING}; style-src-attr 'unsafe-hashes' {_NOTHING} {_SHARP}; img-src 'self' data:"
)
DOCS_POLICY = f"{POLICY}; style-src 'self' 'unsafe-inline'; img-src 'self' data:"  # Swagger UI styles itself inline
_MAP_STYLE = re.compile(rb'getElementById\("([0-9a-f]{64})"\)')  # plotly 7.1; 6.0 has none
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class Page:
    """One file of this package, read once: its bytes, type and tag."""

    def __init__(self, path: Path, policy: str = POLICY, *, filled: Mapping[str, str] = MappingProxyType({})) -> None:
        """Read *path*; in place of each key of *filled* stands its value."""
        text = path.read_text(encoding="utf-8")
        for mark, value in filled.items():
            text = text.replace(mark, value)
        self._body = text.encode()
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
            detail = f"Swagger UI is not installed; try: {install_command('api')}, or read /openapi.json"
            return problem(404, detail, instance=request.scope["path"])
        if self._content is None:
            with self._path.open("rb") as file:
                self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return InSlices(self._content, _TYPES[self._path.suffix], {"cache-control": "max-age=86400"})


class Charts:
    """plotly.js, whose path changes when its file does: a browser asks for it once.

    Attributes:
        path: of the request.
        map_style: the id of the style element of its maps, which it writes unless the page has one; empty where it
            writes none. An empty element in its place keeps the policy of the page narrow.
    """

    def __init__(self, file: Path) -> None:
        found = file.stat()
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as text:
            style = _MAP_STYLE.search(text)
            self.map_style = "" if style is None else style[1].decode()
        self.path = f"/plotly-{found.st_size:x}-{found.st_mtime_ns:x}.js"
        self._file = file
        self._content: dict[bool, mmap.mmap | bytes] = {}
        self._making = threading.Lock()

    async def get(self, request: Request) -> Response:
        """Return the file, compressed for who takes that."""
        compressed = "gzip" in request.headers.get("accept-encoding", "")
        if compressed not in self._content:
            await asyncio.to_thread(self._make, compressed)
        headers = {"cache-control": "public, max-age=31536000, immutable", "vary": "Accept-Encoding"}
        if compressed:
            headers["content-encoding"] = "gzip"
        return InSlices(self._content[compressed], _TYPES[".js"], headers)

    def _make(self, compressed: bool) -> None:
        with self._making, self._file.open("rb") as file:
            if compressed not in self._content:
                whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self._content[compressed] = gzip.compress(whole, 6) if compressed else whole  # 0.3 s, to 1.5 MB


class InSlices(Response):
    """A large file, sent as fast as its reader takes it, and always whole.

    Starlette's FileResponse has each slice read by a thread, of which there are 40, and obeys ``Range``: 200 clients
    that asked and did not read cost 50 MB, and 1,500 ranges in one request 0.67 s.
    """

    def __init__(self, content: mmap.mmap | bytes, media: str, headers: Mapping[str, str]) -> None:
        super().__init__(media_type=media, headers={**headers, "content-length": str(len(content))})
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as every response
        """Send the file."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        end = len(self._content)
        for at in range(0, end, SLICE_BYTES):
            part = self._content[at : at + SLICE_BYTES]
            await send({"type": "http.response.body", "body": part, "more_body": at + SLICE_BYTES < end})


def swagger_path(name: str) -> Path | None:
    """Return where the file *name* of Swagger UI is installed."""
    return _installed(SWAGGER_PACKAGE, f"static/{name}")


def plotly_path() -> Path | None:
    """Return where plotly.js is installed."""
    return _installed("plotly", PLOTLY_FILE)


def _installed(package: str, name: str) -> Path | None:
    """Return the file *name* of *package*, without importing that; None where it is not installed."""
    spec = find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(place) / name
        if path.is_file():
            return path
    return None


def dashboard() -> Pages:
    """Return the dashboard. Nothing of a sampler is in it: its script asks for that, and for the token first."""
    library = plotly_path()
    charts = None if library is None else Charts(library)
    filled = {
        "{{plotly}}": "" if charts is None else charts.path.removeprefix("/"),
        "{{map-style}}": (charts and charts.map_style) or "no-map-style",
    }
    ours: Pages = {
        "/": Page(STATIC / "dashboard.html", CHARTS_POLICY, filled=filled).get,
        "/figures.js": Page(FIGURES).get,
        **{f"/{name}": Page(STATIC / name).get for name in DASHBOARD_FILES},
    }
    return ours if charts is None else {**ours, charts.path: charts.get}


def documentation() -> Pages:
    """Return the documentation; each path is one file, so there is no folder to leave."""
    ours: Pages = {
        "/docs": Page(STATIC / "docs.html", DOCS_POLICY).get,
        "/docs/start.js": Page(STATIC / "docs.js", DOCS_POLICY).get,
    }
    return ours | {f"/docs/{name}": Asset(name).get for name in SWAGGER_FILES}
