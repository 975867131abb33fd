"""What the pages say of the project is what the project does, and their links lead somewhere."""

from __future__ import annotations

import contextlib
import re
import shlex
import tomllib
from typing import TYPE_CHECKING

import pytest

import shm_monitor
from docs.site.shell import whole_parser
from tests.support.surroundings import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = ROOT / "pyproject.toml"

pytestmark = pytest.mark.skipif(not PROJECT.exists(), reason="the pages of a checkout lie beside it")


def test_the_architecture_page_shows_the_rows_that_import_linter_holds() -> None:
    contracts = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

    assert "\n".join(row for row in contracts[0]["layers"] if row != "__main__") in page


@pytest.mark.parametrize("page", ["architecture.md", "CONTRIBUTING.md", "segment.md"])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:shm_monitor|tests|bench|docs)/[\w./]+)`", text))

    assert [one for one in named if not (ROOT / one).exists()] == []


PAGES = [*(ROOT / "docs").glob("*.md"), *(ROOT / "bench").glob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file_and_to_a_heading_in_it(page: Path) -> None:
    """In a checkout, as a web view of the repository shows it; tests/site looks at the site."""
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", _without_code(page))
    targets = [((page.parent / file).resolve() if file else page, anchor) for file, anchor in links]

    assert [str(file) for file, _ in targets if not file.exists()] == []
    assert [anchor for file, anchor in targets if anchor and anchor not in _anchors(file)] == []


def _without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def _anchors(page: Path) -> set[str]:
    """Return what the headings of *page* are linked to by."""
    headings = re.findall(r"^#+ (.*)$", _without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"], ids=lambda page: page.name)
def test_what_a_sentence_names_exists(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands with their options, targets of make, public names; blocks run in test_documents.py."""
    text = _without_code(page)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

    for command in re.findall(r"`shm-monitor ([^`]+)`", text):
        with contextlib.suppress(SystemExit):
            whole_parser().parse_args(shlex.split(re.split(r"\|\||;", command)[0]))
        wrong = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
        assert all("arguments are required" in line for line in wrong), wrong  # a verb alone may be named
    assert [name for name in re.findall(r"`make ([\w-]+)", text) if name not in targets] == []
    assert [name for name in re.findall(r"`@?sm\.(\w+)", text) if not hasattr(shm_monitor, name)] == []
    assert [name for name in re.findall(r"`@?reader\.(\w+)", text) if not hasattr(shm_monitor.Reader, name)] == []
