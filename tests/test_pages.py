"""What the pages for contributors say of the project is what the project does."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.support.surroundings import ROOT

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
    linked = set(re.findall(r"\]\(([\w.]+\.md)\)", text))

    assert [one for one in named if not (ROOT / one).exists()] == []
    assert [one for one in linked if not (ROOT / "docs" / one).exists()] == []
