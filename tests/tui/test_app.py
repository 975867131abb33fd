"""The full screen: every panel and every key, driven as a person would."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

pytest.importorskip("textual", reason="the extra tui is not installed")

import msgspec
from textual.pilot import Pilot
from textual.widgets import Input, Static

from shm_monitor.tui.app import TopApp
from shm_monitor.tui.panels import PANELS
from shm_monitor.tui.screens import ExplainScreen, HelpScreen, InjectScreen, SourcesScreen
from shm_monitor.tui.source import Frame
from tests.support.screens import GPU, Scripted, snapshot, text_of

CALM = Frame("live", snapshot(9))
PRESSED = Frame("live", snapshot(9, "prune", 0.95), why=("memory: level (prune), at 15.2 GB",))

pytestmark = pytest.mark.thorough

Steps = Callable[[TopApp, Pilot[None]], Awaitable[None]]


def drive(source: Scripted, steps: Steps, size: tuple[int, int] = (120, 50), url: str = "") -> None:
    """Show *source* on a screen of *size* and do *steps*."""

    async def go() -> None:
        app = TopApp(source, url=url, turn_seconds=3600.0)  # looks when a test says so
        async with app.run_test(size=size) as pilot:
            await app.look()
            await pilot.pause()
            await steps(app, pilot)

    asyncio.run(go())


def test_the_verdict_its_reason_and_the_address_of_the_api_are_on_top() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        banner = text_of(app, "banner")
        assert "PRUNE" in banner
        assert "memory: level (prune), at 15.2 GB" in banner
        assert "http://127.0.0.1:8909" in banner

    drive(Scripted(PRESSED), steps, url="http://127.0.0.1:8909")


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_every_panel_has_something_to_say_at_every_size(size: tuple[int, int]) -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        for panel in PANELS:
            assert app.query_one(f"#{panel}").display
            assert text_of(app, panel).strip(), panel
        assert app.query_one("#grid").has_class("wide") == (size[0] > 100)

    drive(Scripted(Frame("live", snapshot(9, gpus=[GPU]))), steps, size)


def test_a_dead_sampler_greys_everything_and_says_since_when() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        assert app.has_class("grey")
        assert "STALE since" in text_of(app, "banner")

    drive(Scripted(Frame("stale", snapshot(9), detail="killed")), steps)


def test_no_sampler_is_said_with_what_to_do() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        assert "NO SAMPLER (absent)  try: shm-monitor run" in text_of(app, "banner")

    drive(Scripted(Frame("absent", detail="try: shm-monitor run")), steps)


def test_injected_readings_are_marked() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        assert "INJECTED: memory.usage_bytes" in text_of(app, "banner")

    drive(Scripted(Frame("live", snapshot(9, injected=("memory.usage_bytes",)))), steps)


def test_space_pauses_and_the_arrows_scroll_back_through_the_ring() -> None:
    source = Scripted(CALM, [snapshot(n, used=n / 10) for n in range(1, 9)])

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("space", "left", "left")
        assert "PAUSED, 2 samples back" in text_of(app, "banner")
        assert "sample 7" in text_of(app, "banner")
        assert "11.2 GB" in text_of(app, "memory")
        source.frame = PRESSED
        await app.look()
        assert "sample 7" in text_of(app, "banner"), "a pause stands still"
        await pilot.press("space")
        await app.look()
        assert "PRUNE" in text_of(app, "banner")

    drive(source, steps)


def test_scrolling_ends_where_the_ring_does() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press(*["left"] * 5)
        assert "sample 8" in text_of(app, "banner")
        await pilot.press(*["right"] * 5)
        assert "sample 9" in text_of(app, "banner")

    drive(Scripted(CALM, [snapshot(8)]), steps)


def test_s_sorts_the_workers() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        assert text_of(app, "workers").index("loader") < text_of(app, "workers").index("train.py")
        await pilot.press("s")
        assert text_of(app, "workers").index("train.py") < text_of(app, "workers").index("loader")
        assert app.query_one("#workers").border_title == "workers by cpu"

    drive(Scripted(CALM), steps)


def test_slash_filters_and_escape_shows_all_again() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"load", "enter")
        assert "train.py" not in text_of(app, "workers")
        assert "loader" in text_of(app, "workers")
        await pilot.press("escape")
        assert "train.py" in text_of(app, "workers")
        assert app.query_one("#filter", Input).display is False

    drive(Scripted(CALM), steps)


def test_numbers_close_and_open_panels() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        for number, panel in enumerate(PANELS, 1):
            shown = app.query_one(f"#{panel}").display
            await pilot.press(str(number))
            assert app.query_one(f"#{panel}").display != shown
            await pilot.press(str(number))
            assert app.query_one(f"#{panel}").display == shown

    drive(Scripted(CALM), steps)


def test_the_gpu_panel_is_there_where_a_gpu_is() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        assert not app.query_one("#gpus").display

    drive(Scripted(CALM), steps)


def test_e_explains_and_question_mark_helps() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("e")
        assert isinstance(app.screen, ExplainScreen)
        await pilot.press("escape", "question_mark")
        assert isinstance(app.screen, HelpScreen)

    drive(Scripted(PRESSED), steps)


def test_i_injects_what_is_typed() -> None:
    source = Scripted(CALM)

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("i")
        assert isinstance(app.screen, InjectScreen)
        app.screen.query_one(Input).value = "memory_percent=97 12"
        await pilot.press("enter")
        await pilot.pause()

    drive(source, steps)
    assert source.injected == [({"memory_percent": 97.0}, 12.0)]


@pytest.mark.parametrize("typed", ["memory_percent", "memory_percent=x", "", "5", "=4", "memory_percent=97 -3"])
def test_what_cannot_be_injected_is_said_and_changes_nothing(typed: str) -> None:
    source = Scripted(CALM)

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("i")
        app.screen.query_one(Input).value = typed
        await pilot.press("enter")
        await pilot.pause()
        assert not isinstance(app.screen, InjectScreen)

    drive(source, steps)
    assert not source.injected


def test_a_refused_injection_is_said() -> None:
    source = Scripted(CALM)
    source.allows = False

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("i")
        app.screen.query_one(Input).value = "memory_percent=97"
        await pilot.press("enter")
        await pilot.pause()
        assert [one.message for one in app._notifications] == ["not allowed"]

    drive(source, steps)


def test_t_changes_between_dark_and_light() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        before = app.current_theme.dark
        await pilot.press("t")
        assert app.current_theme.dark != before

    drive(Scripted(CALM), steps)


def test_q_ends_it() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("q")
        await pilot.pause()
        assert not app.is_running

    drive(Scripted(CALM), steps)


def test_a_resize_changes_the_columns() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert not app.query_one("#grid").has_class("wide")

    drive(Scripted(CALM), steps, (160, 50))


def test_a_panel_that_shows_false_readings_says_so_and_no_other() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        marked = {name for name in PANELS if "INJECTED" in (app.query_one(f"#{name}").border_title or "")}
        assert marked == {"memory", "limits", "episodes"}

    drive(Scripted(Frame("live", snapshot(9, injected=("memory.usage_bytes",)))), steps)


def test_o_says_where_each_number_comes_from() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("o")
        assert isinstance(app.screen, SourcesScreen)
        assert "memory.usage_bytes  memory.current (v2)" in str(app.screen.query_one(Static).content)

    drive(Scripted(CALM), steps)


def test_eight_gpus_have_a_line_each() -> None:
    gpus = [msgspec.structs.replace(GPU, instance=str(at), throttle_reasons=()) for at in range(8)]

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        assert len(text_of(app, "gpus").splitlines()) == 1 + 8

    drive(Scripted(Frame("live", snapshot(9, gpus=gpus))), steps, (80, 24))


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_no_line_is_wider_than_its_panel(size: tuple[int, int]) -> None:
    """Else it would be cut: numbers stand at the ends of lines. A long list of reasons may be."""

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        for name in PANELS:
            room = app.query_one(f"#{name}").content_size.width
            assert max(map(len, text_of(app, name).splitlines())) <= room, name

    drive(Scripted(Frame("live", snapshot(9, "prune", 0.95, gpus=[GPU]))), steps, size)
