"""What a document prints is what happens: every block runs as it is written, and shows what is printed."""

from __future__ import annotations

import doctest
import importlib
import shutil
import tomllib
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.page_runs import PageRun
from tests.support.pages import NOTES, RUN, SHOWN, Block, blocks_of, stands_for
from tests.support.surroundings import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGES = {
    str(page.relative_to(ROOT)): blocks_of(page)
    for page in sorted([ROOT / "README.md", ROOT / "bench" / "README.md", *(ROOT / "docs").rglob("*.md")])
}
RUNNING = [page for page, blocks in PAGES.items() if any(map(Block.runs, blocks))]
SETTINGS = {  # beside those that are fast
    "README.md": {"SHM_MONITOR_ALLOW_INJECTION": "true"},
    "docs/http.md": {"SHM_MONITOR_ALLOW_INJECTION": "true"},
}


@pytest.mark.processes
@pytest.mark.timeout(900)  # a busy machine takes minutes for the thirty commands of the README
@pytest.mark.parametrize("page", RUNNING)
def test_what_a_page_prints_is_what_happens(page: str, name: str, tmp_path: Path) -> None:
    missing = [tool for tool in ("bash", "curl", "make") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {missing}")
    with PageRun(tmp_path, name, **SETTINGS.get(page, {})) as run:
        if not run.is_calm():
            pytest.skip("memory of this machine is short, and the pages print what a calm one shows")
        run.run(PAGES[page])

    assert not run.faults, "\n\n".join(run.faults)


@pytest.mark.parametrize("page", PAGES)
def test_a_block_says_its_language_and_one_that_does_not_run_says_why(page: str) -> None:
    for block in PAGES[page]:
        assert block.language in RUN | SHOWN, f"line {block.line}"
        assert "\n$ " not in f"\n{block.text}" or block.language == "console", f"line {block.line}"
        assert all(what in NOTES and (words or what == "continues") for what, _, words in block.notes), block.notes


WITH_EXAMPLES = [
    path
    for package in (ROOT / "shm_monitor", ROOT / "api" / "shm_monitor_api")
    for path in package.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("file", WITH_EXAMPLES, ids=lambda file: file.stem)
def test_an_example_of_a_docstring_prints_what_it_says(file: Path) -> None:
    root = ROOT / "api" if file.is_relative_to(ROOT / "api") else ROOT
    module = importlib.import_module(".".join(file.relative_to(root).with_suffix("").parts))

    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("page", PAGES)
def test_a_block_of_settings_can_be_read_as_what_it_says(page: str) -> None:
    readers: dict[str, Callable[[str], object]] = {"toml": tomllib.loads, "yaml": yaml.safe_load}

    for block in PAGES[page]:
        if block.language in readers:
            assert readers[block.language](block.text), f"line {block.line}"


@pytest.mark.parametrize(
    ("printed", "shown", "holds"),
    [
        ("OK\n0", "OK\n0\n", True),
        ("OK\n0", "CRITICAL\n1", False),
        ("OK\n0", "OK\n1", False),
        ("first\n  ...\n0", "first\n0", True),
        ("at 22.8 GB since 22:02:44", "at 512.0 MB since 01:59:00", True),
        ("at 22.8 GB", "at 22.8 %", False),
        ('{"level":"ok","gpu":null}', '{"level":"ok","gpu":12.5}', True),
        ('{"level":"ok","gpu":null}', '{"level":"ok","gpus":null}', False),
        ('{"times":[1.5,2.5]}', '{"times":[3.5]}', True),
        ("first\n...\nlast", "first\nsecond\nthird\nlast", True),
        ("first\n...", "second", False),
    ],
)
def test_a_printed_output_stands_for_the_same_with_other_numbers(printed: str, shown: str, *, holds: bool) -> None:
    assert stands_for(printed, shown) is holds


@pytest.mark.processes
def test_what_is_not_as_printed_is_found(name: str, tmp_path: Path) -> None:
    blocks = [
        Block(1, "console", "$ shm-monitor check; echo $?\nCRITICAL\n1\n"),
        Block(2, "console", "$ shm-monitor nothing\n"),
        Block(3, "python", "import shm_monitor as sm\nsm.nothing\n"),
        Block(4, "console", "$ false\n", (("not run", "", "it would fail"),)),
    ]
    with PageRun(tmp_path, name) as run:
        run.run(blocks)

    assert [fault.partition(":")[0] for fault in run.faults] == ["line 1", "line 2", "line 3"]
