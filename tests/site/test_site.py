"""The site says what holds: figures are of the rule of today, a dead link fails, no page asks a foreign host."""

from __future__ import annotations

import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.browser import Visit, chromium
from tests.support.surroundings import ROOT, UNMEASURED, child_environment

if not (ROOT / "docs" / "site").exists():
    pytest.skip("the pages of a checkout lie beside it", allow_module_level=True)

from docs.site import build, figures, howto, reference

IMAGES = ROOT / "docs" / "images"


@pytest.mark.parametrize("name", figures.FIGURES)
def test_a_figure_is_what_the_kernels_decide_now(name: str) -> None:
    """`make docs` draws them again."""
    assert figures.drawn(name) == (IMAGES / f"{name}.svg").read_text(encoding="utf-8")


def test_the_figures_show_what_the_page_says_of_them() -> None:
    found = {name: [one.reasons[0] for one in figures.episodes(figures.decided(name))] for name in figures.FIGURES}

    assert found == {"spikes": [], "level": ["level"], "hover": ["forecast"], "ramp": ["forecast"], "sawtooth": []}


def test_every_page_is_in_the_navigation() -> None:
    config = (ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8")
    written = {page.name for page in (ROOT / "docs").glob("*.md")} | set(build.FROM_OUTSIDE)
    made = {name for name in {**howto.pages(build.DOCS), **reference.pages()} if not name.startswith("howto/")}

    assert sorted(name for name in written | made if name not in config) == []


def test_every_public_name_and_every_path_is_in_the_reference() -> None:
    import shm_monitor

    assert all(f".{name}\n" in reference.python() for name in shm_monitor._HOMES)
    assert "## GET /resources/prune" in reference.http()
    assert "--max-event-clients" in reference.command_line()


def test_every_integration_has_its_page() -> None:
    from shm_monitor import integrations

    shared, by_signal = {"host_semaphore", "pressure"}, {"celery"}
    written = {one.name for one in pkgutil.iter_modules(integrations.__path__)} - shared
    assert set(howto.CHAPTERS) == written | by_signal


def test_links_out_of_the_pages_lead_to_a_page() -> None:
    assert build.with_links("[a](../bench/README.md#results) [b](start.md)") == "[a](measured.md#results) [b](start.md)"
    assert build.with_links("[a](docs/survival.md)") == "[a](survival.md)", "as the changelog says it"


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as Zensical gets them."""
    if shutil.which("zensical", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("the extra check is not installed")
    place = tmp_path_factory.mktemp("site")
    build.stage(place)
    return place


def built(place: Path) -> subprocess.CompletedProcess[str]:
    """Build what is staged in *place*, strictly."""
    zensical = Path(sys.executable).with_name("zensical")
    return subprocess.run(
        [zensical, "build", "--strict"], cwd=place, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.processes
def test_the_site_asks_no_foreign_host(staged: Path) -> None:
    done = built(staged)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((staged / "site").rglob("*.html"))
    assert len(pages) > 25
    asked = {
        found
        for page in pages
        for found in re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(https?:[^"]+)', page.read_text())
    }
    assert asked == set()
    shown = [*pages, staged / "site" / "search.json"]
    assert [
        page for page in shown if re.search(r":(?:attr|class|data|func|meth|mod):[`<]|<p>::", page.read_text())
    ] == []


@pytest.mark.browser
def test_the_search_works_in_a_page_that_is_opened_as_a_file(staged: Path) -> None:
    done = built(staged)
    assert done.returncode == 0, done.stdout + done.stderr
    with chromium() as browser, Visit(browser) as visit:
        page = visit.open((staged / "site" / "index.html").as_uri(), until=".md-search__button")
        page.locator(".md-search__button").click()
        page.keyboard.type("should_prune")
        page.get_by_text(re.compile(r"\d\d results")).wait_for()
        assert visit.errors == []


@pytest.mark.processes
@pytest.mark.parametrize("module", ["build", "figures", "screens", "shell"])
def test_without_its_packages_the_site_says_what_to_install(module: str) -> None:
    command = [sys.executable, "-S", "-m", f"docs.site.{module}"]  # -S: only the standard library
    environ = child_environment(PYTHONPATH=str(ROOT)) | UNMEASURED
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)

    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "which is not installed; try: make docs" in done.stderr


@pytest.mark.processes
@pytest.mark.parametrize("link", ["[dead](nowhere.md)", "[dead](concepts.md#nowhere)"])
def test_a_dead_link_fails(staged: Path, link: str) -> None:
    page = staged / "src" / "limits.md"
    before = page.read_text(encoding="utf-8")
    page.write_text(f"{before}\n{link}\n", encoding="utf-8")
    try:
        done = built(staged)
    finally:
        page.write_text(before, encoding="utf-8")

    assert done.returncode != 0
    assert "does not exist" in done.stdout + done.stderr
