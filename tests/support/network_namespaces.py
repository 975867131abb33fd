"""Network namespaces with a cable between them, and processes that live in them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

RECEIVER = """
import socket
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(("10.123.0.2", 9999))
print("ready", flush=True)
while True:
    receiver.recv(2000)
"""


@contextlib.contextmanager
def process_in(namespace: str, code: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python *code* in a network namespace; it has said its first line."""
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            answer(process)
            yield process
        finally:
            process.kill()


def answer(process: subprocess.Popen[str], line: str = "") -> str:
    """Say *line* to *process*, if any, and return what it says."""
    assert process.stdin is not None
    assert process.stdout is not None
    if line:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    return process.stdout.readline().strip()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def veth_pair() -> Iterator[tuple[str, str]]:
    """Make two network namespaces with a cable between them: 10.123.0.1 and 10.123.0.2."""
    if shutil.which("ip") is None:
        pytest.skip("iproute2 is not installed")
    unique = uuid.uuid4().hex[:6]
    spaces = (f"smt-{unique}-a", f"smt-{unique}-b")
    try:
        try:
            for space in spaces:
                ip("netns", "add", space)
            ip("-n", spaces[0], "link", "add", "cable0", "type", "veth", "peer", "name", "cable0", "netns", spaces[1])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespace with a veth pair can be made: {error.stderr!r}")
        for number, space in enumerate(spaces, 1):
            ip("-n", space, "link", "set", "cable0", "addrgenmode", "none", "up")  # no packets of IPv6's own
            ip("-n", space, "addr", "add", f"10.123.0.{number}/24", "dev", "cable0")
        yield spaces
    finally:
        for space in spaces:
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)
