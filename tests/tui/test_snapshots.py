"""How it looks: a picture of each panel, and of the screen after each key."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("textual", reason="the extra tui is not installed")

import textual
from rich.console import Console
from rich.panel import Panel

from shm_monitor.tui.app import TopApp
from shm_monitor.tui.axis import Axis
from shm_monitor.tui.look import Look
from shm_monitor.tui.panels import PANELS, sample_of, title_of
from shm_monitor.tui.rows import drawn, heights
from tests.support.snapshots import is_as_kept
from tests.support.surroundings import ROOT

if not (ROOT / "docs" / "site").exists():
    pytest.skip("the node that is shown lies beside a checkout", allow_module_level=True)

from docs.site.screens import Node, sample

of_this_textual = pytest.mark.skipif(
    not textual.__version__.startswith("8.2."), reason="the pictures are those of textual 8.2"
)


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_looks_as_it_did(name: str) -> None:
    node = Node()
    frame = node.newest()
    look = Look(56, Axis([*node.past(300), sample(300)], 56))
    rows = PANELS[name](sample_of(frame), look)
    text = drawn(rows, look.axis, heights({name: rows}, 20)[name])
    console = Console(file=io.StringIO(), width=60, record=True, force_terminal=True, color_system="truecolor")
    console.print(Panel(text, title=title_of(name, frame, look)))

    assert is_as_kept(name, console.export_svg(title=name))


KEYS = {
    "calm-screen": (),
    "help": ("question_mark",),
    "explain": ("e",),
    "sources": ("o",),
    "inject": ("i",),
    "filter": ("slash", *"load"),
    "paused": ("space", "left", "left"),
    "sorted": ("s",),
    "longer-span": ("plus",),
    "light": ("t",),
    "closed": ("1", "2"),
    "second-panel": ("tab", "tab"),
}

TALL = {"filter", "sorted", "longer-span"}  # the workers are below the first screen of 24 lines


@of_this_textual
@pytest.mark.parametrize("name", KEYS)
def test_the_screen_looks_as_it_did_after_a_key(name: str) -> None:
    async def go() -> str:
        app = TopApp(Node(), url="http://127.0.0.1:8909", turn_seconds=3600.0)
        async with app.run_test(size=(80, 44 if name in TALL else 24)) as pilot:
            await app.look()
            await pilot.pause()
            await pilot.press(*KEYS[name])
            await pilot.pause()
            for field in app.screen.query("Input"):
                field.cursor_blink = False  # type: ignore[attr-defined]
            await pilot.pause()
            return app.export_screenshot(title="shm-monitor top")

    assert is_as_kept(f"key-{name}", asyncio.run(go()))
