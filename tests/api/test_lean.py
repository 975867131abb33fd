"""What the server of this package serves: the answers of the application by FastAPI, in less memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest

from shm_monitor_api import ApiConfig, create_app
from shm_monitor_api.lean import create_lean_app
from shm_monitor_api.service import Service
from tests.support.api_server import PATHS, TOKEN, ApiProcess, Asked, MortalSampler

if TYPE_CHECKING:
    from collections.abc import Iterator

PRIVATE_BYTES_MAX = 30 * 2**20
PAGES = ("/", "/dashboard.js", "/icon.svg", "/docs", "/docs/start.js", "/docs/swagger-ui.css")
OTHERS = ("/healthz", "/readyz", "/metrics", "/openapi.json", *PAGES, "/nope", "/healthz/", "//healthz", "/redoc")
QUERIES = ("/history?seconds=x&since=-1", "/history?metrics=no.such", "/history?step=2&step=3", "/history?nonsense=1")


@pytest.fixture
def sampler(name: str) -> Iterator[MortalSampler]:
    made = MortalSampler(name, gpus=1)
    made.feed(*[50.0] * 5)
    yield made
    made.die()


@pytest.fixture
def both(sampler: MortalSampler, name: str) -> tuple[Asked, Asked]:
    config = ApiConfig(name=name)
    return Asked(create_app(config)), Asked(create_lean_app(config))


def said(response: httpx.Response) -> tuple[int, object, dict[str, str]]:
    """Return status, body and headers; the age of a sample moves on between two answers."""
    body: object = response.text
    if response.headers.get("content-type", "").endswith("json") and response.text:
        body = json.loads(response.text)
        if isinstance(body, dict):
            body.pop("age_seconds", None)
    headers = {key: value for key, value in response.headers.items() if key != "content-length"}
    return response.status_code, body, headers


@pytest.mark.processes
@pytest.mark.parametrize("path", [*PATHS, *OTHERS, *QUERIES])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_both_applications_answer_alike(both: tuple[Asked, Asked], path: str, method: str) -> None:
    full, lean = both

    assert said(lean(path, method)) == said(full(path, method))


@pytest.mark.parametrize("method", ["HEAD", "DELETE"])
def test_events_are_there_to_be_listened_to(both: tuple[Asked, Asked], method: str) -> None:
    for ask in both:
        response = ask("/events", method)
        assert (response.status_code, response.headers["allow"]) == (405, "GET")


def test_the_document_is_guarded_as_everything(name: str) -> None:
    ask = Asked(create_lean_app(ApiConfig(name=name, token=TOKEN)))

    assert ask("/openapi.json").status_code == 401
    assert "security" in ask("/openapi.json", headers={"authorization": f"Bearer {TOKEN}"}).json()


def test_a_service_has_an_endpoint_for_each_path(name: str) -> None:
    assert set(Service(ApiConfig(name=name)).endpoints) == {*PATHS, "/events", "/healthz", "/metrics", "/readyz"}


def private_bytes(pid: int) -> int:
    """Return the memory that only process *pid* has. Source: proc_pid_smaps_rollup(5)."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Private_"))


def loaded(pid: int, library: str) -> bool:
    """Say whether process *pid* has mapped a shared library of that name."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as file:
        return library in file.read()


@pytest.mark.processes
def test_a_server_that_answers_with_data_is_small(sampler: MortalSampler, name: str) -> None:
    with ApiProcess("--name", name, "--bind", "127.0.0.1:0") as server:
        for path in (*PATHS, "/healthz", "/readyz", "/", "/dashboard.js", "/metrics"):
            assert httpx.get(f"{server.url}{path}").status_code == 200
        assert private_bytes(server.process.pid) < PRIVATE_BYTES_MAX
        assert not loaded(server.process.pid, "pydantic_core")

        assert httpx.get(f"{server.url}/openapi.json").json()["openapi"].startswith("3.1")
        assert loaded(server.process.pid, "pydantic_core")
