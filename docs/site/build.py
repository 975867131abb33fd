"""``python -m docs.site.build [PLACE]``: the site, from docs/, the docstrings, the parsers and the OpenAPI document.

The pages are staged first: what is generated comes beside those that are written, and links that leave docs/ are given
a page. Then Zensical builds them, strictly: a dead link, a dead anchor or an unknown name fails. Nothing is fetched.

Zensical is the successor of Material for MkDocs by the same people; that one is in maintenance until May 2027. Both
read docs/mkdocs.yml.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from docs.site import howto, reference

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FROM_OUTSIDE = {
    "measured.md": ROOT / "bench" / "README.md",
    "tables.md": ROOT / "bench" / "tables.md",
    "changelog.md": ROOT / "CHANGELOG.md",
}
SEARCHES_IN_FILES = "iframe-worker.js"
LINKS = {
    "../README.md": "index.md",
    "../bench/README.md": "measured.md",
    "../docs/growth.md": "growth.md",
    "../CHANGELOG.md": "changelog.md",
    "deploy/systemd/": "deploy/index.md",
    "deploy/": "deploy/index.md",
}


def main(arguments: list[str]) -> int:
    """Stage and build into ``PLACE/site``; return Zensical's status."""
    place = Path(arguments[0] if arguments else ROOT / "build" / "docs").resolve()
    stage(place)
    zensical = Path(sys.executable).with_name("zensical")
    if not zensical.exists():
        raise ModuleNotFoundError(name="zensical")
    done = subprocess.run(
        [zensical, "build", "--strict", "--clean"], cwd=place, check=False, capture_output=True, text=True
    )
    if done.returncode:
        print(_told(done.stdout + done.stderr), file=sys.stderr)
    else:
        print(f"the site: {place / 'site' / 'index.html'}")
    return done.returncode


def stage(place: Path) -> None:
    """Write the pages and their configuration into *place*."""
    shutil.rmtree(place, ignore_errors=True)
    source = place / "src"
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("site", "mkdocs.yml", "__pycache__"))
    shutil.copy(Path(__file__).with_name(SEARCHES_IN_FILES), source)
    for name, file in FROM_OUTSIDE.items():
        shutil.copy(file, source / name)
    generated = {**howto.pages(DOCS), **reference.pages()}
    for name, text in generated.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    for page in source.glob("*.md"):
        page.write_text(with_links(page.read_text(encoding="utf-8")), encoding="utf-8")
    frameworks = "\n".join(f"      - {title}: {name}" for name, title in howto.titles(DOCS).items())
    config = (DOCS / "mkdocs.yml").read_text(encoding="utf-8").replace("      - FRAMEWORKS", frameworks)
    (place / "mkdocs.yml").write_text(config.replace("[ROOT]", f'["{ROOT}", "{ROOT / "api"}"]'), encoding="utf-8")


def with_links(text: str) -> str:
    """Return *text* with its links out of docs/ led to a page."""
    return re.sub(r"\]\(([^)#\s]+)", lambda found: f"]({LINKS.get(found[1], found[1].removeprefix('docs/'))}", text)


def _told(text: str) -> str:
    """Return what Zensical says, without colours, and without the traceback that ends it."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).partition("\nTraceback")[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
