"""docs/deploy/nginx, as it is but for names and ports: nginx takes it, ends TLS with it and holds a flood back."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest

from tests.support.api_server import TOKEN, ApiProcess, MortalSampler, eventually
from tests.support.certificate import made_certificate
from tests.support.surroundings import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.processes

FILE = ROOT / "docs" / "deploy" / "nginx" / "shm-monitor.conf"
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
BARE = """\
daemon off; pid {directory}/pid; error_log {directory}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    include {directory}/shm-monitor.conf;
}}
"""


class Proxy(NamedTuple):
    """A running nginx.

    Attributes:
        url: where it serves https.
        tls: trusts its certificate.
    """

    url: str
    tls: ssl.SSLContext

    def get(self, path: str, token: str = TOKEN, **headers: str) -> httpx.Response:
        """Ask for *path*."""
        sent = {"authorization": f"Bearer {token}", **headers}
        return httpx.get(f"{self.url}{path}", headers=sent, verify=self.tls, timeout=30)


@pytest.fixture
def proxy(name: str, tmp_path: Path) -> Iterator[Proxy]:
    """An API with a token, and nginx before it."""
    if shutil.which(NGINX) is None:
        pytest.skip("nginx is not installed (Debian: nginx-light)")
    sampler = MortalSampler(name)
    sampler.feed(*[50.0] * 3)
    cert, key = made_certificate(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"SHM_MONITOR_TOKEN": TOKEN, "SHM_MONITOR_ALLOWED_HOSTS": "localhost"}
    with ApiProcess("--name", name, "--bind", "127.0.0.1:0", environ=settings) as api:
        text = FILE.read_text(encoding="utf-8")
        for here, there in {
            "127.0.0.1:8909": f"127.0.0.1:{api.port}",
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "gpu-7.cluster": "localhost",
            "/etc/shm-monitor/cert.pem": cert,
            "/etc/shm-monitor/key.pem": key,
        }.items():
            assert here in text
            text = text.replace(here, there)
        (tmp_path / "shm-monitor.conf").write_text(text)
        (tmp_path / "nginx.conf").write_text(BARE.format(directory=tmp_path))
        options = ["-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path), "-e", str(tmp_path / "error.log")]
        tried = subprocess.run([NGINX, "-t", *options], capture_output=True, text=True, check=False)
        assert tried.returncode == 0, tried.stderr
        with subprocess.Popen([NGINX, *options]) as process:
            made = Proxy(f"https://localhost:{port}", ssl.create_default_context(cafile=cert))
            try:
                eventually(lambda: answers(made))
                yield made
            finally:
                process.terminate()
    sampler.die()


def answers(proxy: Proxy) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return proxy.get("/healthz").status_code == 200
    return False


def test_a_request_reaches_the_api_with_its_token_and_without_it_does_not(proxy: Proxy, name: str) -> None:
    found = proxy.get("/snapshot", origin=proxy.url)

    assert (found.status_code, found.json()["name"]) == (200, name)
    assert proxy.get("/snapshot", token="wrong").status_code == 401
    assert proxy.get("/snapshot", origin="https://evil.example").status_code == 403
    assert proxy.get("/snapshot", host="evil.example").status_code == 421


def test_events_come_at_once(proxy: Proxy) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.stream("GET", f"{proxy.url}/events", headers=headers, verify=proxy.tls, timeout=30) as response:
        assert next(response.iter_lines()).startswith("retry:")


def test_one_client_has_32_connections(proxy: Proxy) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    with contextlib.ExitStack() as stack:
        for _ in range(32):
            client = stack.enter_context(httpx.Client(verify=proxy.tls, timeout=30))
            stream = stack.enter_context(client.stream("GET", f"{proxy.url}/events", headers=headers))
            assert stream.status_code == 200
        assert proxy.get("/healthz").status_code == 429

    eventually(lambda: proxy.get("/healthz").status_code == 200)
