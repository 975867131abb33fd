"""The OpenAPI document is true, and both it and its page work without the internet."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shm_monitor.errors import install_command
from shm_monitor_api import pages
from shm_monitor_api.pages import DASHBOARD_FILES, FIGURES, STATIC, SWAGGER_FILES, plotly_path, swagger_path
from tests.support.api_server import PATHS, TOKEN, ApiProcess, Asked, MortalSampler, asked
from tests.support.surroundings import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHERS = ("/events", "/healthz", "/metrics", "/readyz")
HAS_SWAGGER = swagger_path(SWAGGER_FILES[0]) is not None


@pytest.fixture
def sampler(name: str) -> Iterator[MortalSampler]:
    made = MortalSampler(name, gpus=1)
    made.feed(50.0)
    yield made
    made.die()


@pytest.fixture
def ask(sampler: MortalSampler, name: str) -> Asked:
    return asked(name)


@pytest.fixture
def document(ask: Asked) -> dict[str, Any]:
    found: dict[str, Any] = ask("/openapi.json").json()
    return found


def test_the_document_has_every_path_and_no_other(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {*PATHS, *OTHERS}
    assert all(list(operations) == ["get"] for operations in document["paths"].values())


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))

    assert names <= set(document["components"]["schemas"])
    assert {"Resources", "CpuResource", "Snapshot", "Explanation", "History", "Problem"} <= names


@pytest.mark.parametrize("path", PATHS)
def test_data_is_declared_in_both_formats_with_one_schema(document: dict[str, Any], path: str) -> None:
    responses = document["paths"][path]["get"]["responses"]

    assert set(responses["200"]["content"]) == {"application/json", "application/msgpack"}
    assert len({json.dumps(one) for one in responses["200"]["content"].values()}) == 1
    assert {"304", "401", "403", "406", "421", "503"} <= set(responses)


@pytest.mark.parametrize("path", [*PATHS, *OTHERS])
def test_every_error_is_declared_as_a_problem(document: dict[str, Any], path: str) -> None:
    responses = document["paths"][path]["get"]["responses"]
    errors = {status: one["content"] for status, one in responses.items() if status[0] in "45"}
    by_uvicorn = errors["400"].pop("text/plain")  # its own answer to what is no HTTP

    assert by_uvicorn == {"schema": {"type": "string"}}
    for content in errors.values():
        assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


@pytest.mark.processes
@pytest.mark.parametrize("path", PATHS)
def test_a_body_has_exactly_the_fields_that_are_declared(ask: Asked, document: dict[str, Any], path: str) -> None:
    reference = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    schema = document["components"]["schemas"][reference.rpartition("/")[2]]

    assert list(ask(path).json()) == schema["required"] == list(schema["properties"])


def test_the_token_is_declared_where_one_is_needed(ask: Asked, document: dict[str, Any], name: str) -> None:
    needing = asked(name, token=TOKEN)("/openapi.json", headers={"authorization": f"Bearer {TOKEN}"}).json()

    assert "security" not in document
    assert needing["security"] == [{"bearer": []}, {"basic": []}]
    assert set(needing["components"]["securitySchemes"]) == {"bearer", "basic"}


def test_the_document_stays_the_same(ask: Asked) -> None:
    assert ask("/openapi.json").content == ask("/openapi.json").content


# Pages


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_names_no_other_host_and_runs_nothing_inline(ask: Asked, path: str) -> None:
    response = ask(path)

    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"].startswith("default-src 'self';")
    assert "script-src" not in response.headers["content-security-policy"]
    assert not re.search(r"(https?:)?//\w|<script>|<style>| style=| on\w+=", response.text)
    assert "{{" not in response.text
    for linked in re.findall(r'(?:src|href)="([^":]+)"', response.text):
        assert ask(f"/{linked}").status_code == 200 or (linked.startswith("docs/swagger-ui") and not HAS_SWAGGER)


@pytest.mark.parametrize("path", ["/", "/dashboard.js", "/figures.js", "/dashboard.css", "/docs", "/docs/start.js"])
def test_a_page_is_sent_once(ask: Asked, path: str) -> None:
    tag = ask(path).headers["etag"]

    assert ask(path, headers={"if-none-match": tag}).status_code == 304


def test_the_pages_are_in_the_package() -> None:
    assert {path.name for path in STATIC.iterdir()} == {*DASHBOARD_FILES, "dashboard.html", "docs.html", "docs.js"}


def test_every_module_that_a_script_imports_is_served(ask: Asked) -> None:
    for path in STATIC.glob("*.js"):
        for module in re.findall(r'from "./([^"]+)"', path.read_text(encoding="utf-8")):
            assert ask(f"/{module}").headers["content-type"].startswith("text/javascript")


@pytest.mark.skipif(plotly_path() is None, reason="plotly is not installed")
def test_plotly_is_sent_once_for_ever_and_compressed(ask: Asked) -> None:
    path = re.findall(r'data-plotly="([^"]+)"', ask("/").text)[0]
    whole = ask(f"/{path}", headers={"accept-encoding": "identity"})
    compressed = ask(f"/{path}", headers={"accept-encoding": "gzip"})

    assert compressed.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert compressed.headers["content-encoding"] == "gzip"
    assert int(compressed.headers["content-length"]) < int(whole.headers["content-length"]) / 2
    assert compressed.content == whole.content == plotly_path().read_bytes()  # type: ignore[union-attr]


def test_without_plotly_the_page_says_so(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(pages, "plotly_path", lambda: None)

    assert 'data-plotly=""' in asked(name)("/").text


def test_no_page_of_ours_names_a_host_or_builds_html_from_data() -> None:
    for path in [*STATIC.iterdir(), FIGURES]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), path


@pytest.mark.skipif(not HAS_SWAGGER, reason="fastapi-offline, which brings Swagger UI, is not installed")
@pytest.mark.parametrize("name", SWAGGER_FILES)
def test_swagger_ui_comes_from_an_installed_package(ask: Asked, name: str) -> None:
    response = ask(f"/docs/{name}")

    assert response.status_code == 200
    assert len(response.content) > 100_000
    assert response.headers["content-type"].startswith(("text/javascript", "text/css"))


@pytest.mark.skipif(not HAS_SWAGGER, reason="fastapi-offline, which brings Swagger UI, is not installed")
def test_an_asset_is_always_sent_whole(ask: Asked) -> None:
    """Ranges are an offer that may be left (RFC 9110, 14.2), and 1,500 of them in one request are no good one."""
    ranges = "bytes=" + ",".join(f"{at}-{at + 1}" for at in range(0, 3000, 2))
    response = ask(f"/docs/{SWAGGER_FILES[0]}", headers={"range": ranges})

    assert response.status_code == 200
    assert len(response.content) == int(response.headers["content-length"])


def test_without_swagger_ui_the_page_leads_to_the_document(ask: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shm_monitor_api.pages.SWAGGER_PACKAGE", "not_installed_at_all")
    bare = asked("nobody")

    assert bare("/docs").status_code == 200
    assert 'href="openapi.json"' in bare("/docs").text
    assert install_command("api") in bare("/docs/swagger-ui.css").json()["detail"]


# The whole document, by a tool made for that


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="schemathesis is not installed")
@pytest.mark.parametrize("token", [None, TOKEN])
def test_schemathesis_finds_nothing(name: str, token: str | None, tmp_path: Path) -> None:
    """No 5xx, no undeclared response, no body beside its schema: all checks. Without ``/events``, which never ends."""
    sampler = MortalSampler(name, gpus=2, max_gpu_usage_percent=90.0, stale_after=3600.0)
    sampler.feed(*[50.0] * 20, 98.0)
    settings = {"SHM_MONITOR_TOKEN": token} if token else {}
    # A value that is too long may be refused as too long a head (431), which schemathesis does not expect by itself.
    refusals = ["400", "401", "403", "404", "405", "406", "422", "431", "5xx"]
    # No schema can say that a period must not be shorter than the time between two samples of this sampler.
    (tmp_path / "schemathesis.toml").write_text(
        f"checks.negative_data_rejection.expected-statuses = {refusals}\n"
        '[[operations]]\ninclude-path = "/replay"\n'
        'checks.positive_data_acceptance.expected-statuses = ["2xx", "3xx", "422"]\n'
    )
    with ApiProcess("--name", name, "--bind", "127.0.0.1:0", environ=settings) as server:
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")),
                "run",
                f"{server.url}/openapi.json",
                "--checks=all",
                "--exclude-path=/events",
                "--phases=examples,coverage,fuzzing",
                "--max-examples=60",
                "--no-color",
                *(["--header", f"Authorization: Bearer {token}"] if token else []),
            ],
            cwd=tmp_path,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.support.api_schemathesis_hooks", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    sampler.die()

    assert done.returncode == 0, done.stdout
    assert "Unresolvable" not in done.stdout
    assert "missing deserializers" not in done.stdout
    assert "Traceback" not in server.log
