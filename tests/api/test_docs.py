"""What docs/http.md and the README show works as printed: the curl lines of both, the Python, the unit."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.api_server import ApiProcess, MortalSampler
from tests.support.surroundings import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = f"test-api-docs-{os.getpid()}"
TEXT = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
CURLS = re.findall(r"^\$ (curl [^\n]*)\n(.*?)^```$", TEXT + README, re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture(scope="module")
def server() -> Iterator[ApiProcess]:
    # It takes no further sample: on a busy machine 2 s without one would pass, and the stream begin with `stale`.
    sampler = MortalSampler(NAME, stale_after=3600.0)
    sampler.feed(*[50.0] * 5)
    with ApiProcess("--name", NAME, "--bind", "127.0.0.1:0") as started:
        yield started
    sampler.die()


def test_there_are_examples() -> None:
    assert len(CURLS) >= 9


@pytest.mark.parametrize(("command", "shown"), CURLS, ids=[command[:60] for command, _ in CURLS])
def test_a_curl_line_answers_as_shown(server: ApiProcess, command: str, shown: str) -> None:
    """The same fields of a body, the same events; the numbers are those of another machine."""
    words = shlex.split(re.sub(r"(localhost|127\.0\.0\.1):8909", f"localhost:{server.port}", command))
    done = subprocess.run([*words, "--max-time", "2"], capture_output=True, text=True, check=False)

    if "If-None-Match" in command:
        assert done.stdout.startswith("HTTP/1.1 200")  # the tag that is shown is one of another sample
    elif "/events" in command:
        assert events_of(done.stdout)[:3] == events_of(shown)
    else:
        assert fields_of(json.loads(done.stdout)) == fields_of(json.loads(shown))


def events_of(text: str) -> list[str]:
    """Return the lines of a stream that say what happens, without the numbers."""
    return [line for line in text.splitlines() if line.startswith(("retry:", "event:"))]


def fields_of(body: dict[str, Any]) -> list[str]:
    """Return the names of *body*, and what a problem says."""
    return [*body, *(str(body.get(key)) for key in ("type", "title", "status"))]


def test_the_python_runs_as_written() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    found: dict[str, Any] = {}
    exec(example, found)

    assert found["app"].title == "shm-monitor"
