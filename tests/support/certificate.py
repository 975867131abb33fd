"""A certificate for tests of TLS."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from pathlib import Path


class Certificate(NamedTuple):
    """The files of a self-signed certificate for localhost, and of its key."""

    cert: str
    key: str


def made_certificate(folder: Path) -> Certificate:
    """Make them in *folder*; without openssl the test is skipped."""
    made = Certificate(str(folder / "cert.pem"), str(folder / "key.pem"))
    kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", *kind, *names, "-keyout", made.key, "-out", made.cert]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl here to make a certificate")
    return made
