"""TLS, with a certificate of our own."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.api_server import ApiProcess, assert_refused, exchanged
from tests.support.certificate import Certificate, made_certificate

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return made_certificate(tmp_path_factory.mktemp("tls"))


def test_tls_is_served_and_plain_http_is_not(certificate: Certificate) -> None:
    cert, key = certificate
    options = ("--bind", "localhost:0", "--tls-cert", cert, "--tls-key", key)
    with ApiProcess("--name", "test-api-tls", *options) as server:
        trusted = ssl.create_default_context(cafile=cert)
        response = httpx.get(f"https://localhost:{server.port}/healthz", verify=trusted)
        plain = exchanged(server.port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")

    assert response.status_code == 200
    assert b"alive" not in plain


def test_a_certificate_that_cannot_be_used_is_said_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "cert.pem"
    broken.write_text("nonsense")
    options = ("--tls-cert", str(broken), "--tls-key", str(broken))

    assert_refused(ApiProcess("--bind", "127.0.0.1:0", *options), "cannot be used")
