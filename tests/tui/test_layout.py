"""The whole screen at each size: it is filled, nothing is clipped, all charts share one time axis."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable

import pytest

pytest.importorskip("textual", reason="the extra tui is not installed")

from rich.text import Text
from textual.pilot import Pilot
from textual.widgets import Static

from shm_monitor.snapshot.structs import Cpu, LimitState, Network, Snapshot
from shm_monitor.tui.app import TopApp
from shm_monitor.tui.axis import GUTTER_CELLS
from shm_monitor.tui.marks import GREY
from shm_monitor.tui.panels import COLUMNS, PANELS
from shm_monitor.tui.source import Frame
from tests.support.screens import GPU, Scripted, snapshot, text_of
from tests.support.waiting import PATIENCE_SECONDS

SIZES = [(80, 24), (109, 70), (120, 40), (200, 60)]
REASON = (
    "memory of our cgroup /job/train-42: 15.2 of 16.0 GB, level (prune), mean 15.2 GB, limit 14.4 GB, since 14:18:20"
)
TRAFFIC = LimitState(
    "network", "network.usage_bytes_per_second", "prune", ("level", "forecast", "capacity", "event"), 1.09e9, 1.09e9,
    1.09e9, 1.08e9, 1.05e9,
)  # fmt: skip
PRESSED = snapshot(300, "prune", 0.95, limits=[*snapshot(1, "prune", 0.95).limits, TRAFFIC])
PAST = [snapshot(n, used=n / 400) for n in range(1, 300)]
FRAMES = {
    "calm": Frame("live", snapshot(300)),
    "gpu": Frame("live", snapshot(300, gpus=[GPU])),
    "pressed": Frame("live", PRESSED, (REASON,) * 7),
    "injected": Frame("live", snapshot(300, injected=tuple(f"memory:{n}.usage_bytes" for n in range(9)))),
    "dead": Frame("stale", snapshot(300, "prune", 0.95), detail="its sampler was killed; try: shm-monitor run"),
    "absent": Frame("absent", detail="no sampler named 'job'; try: shm-monitor run --name job"),
}  # fmt: skip

pytestmark = pytest.mark.thorough

Steps = Callable[[TopApp, Pilot[None]], Awaitable[None]]
each_size = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")


def drive(steps: Steps, size: tuple[int, int], states: Iterable[str] = ("calm",), past: list[Snapshot] = PAST) -> None:
    """Show the frame of each of *states* after *past* on a screen of *size*, and do *steps* with each."""

    async def go() -> None:
        source = Scripted(Frame("absent"), past)
        app = TopApp(source, url="http://127.0.0.1:8909", turn_seconds=3600.0)
        async with app.run_test(size=size) as pilot, asyncio.timeout(PATIENCE_SECONDS):
            while not app.query("FooterKey"):
                await pilot.pause(0.01)
            for state in states:
                source.frame = FRAMES[state]
                await app.look()
                await pilot.pause()
                await steps(app, pilot)

    asyncio.run(go())


@each_size
def test_panels_fill_the_screen_and_none_is_cut_in_two(size: tuple[int, int]) -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        body = app.query_one("#body").region
        for column in COLUMNS if app.query_one("#grid").has_class("wide") else (PANELS,):
            regions = [app.query_one(f"#{name}").region for name in column if app.query_one(f"#{name}").display]
            assert all(above.bottom == below.y for above, below in itertools.pairwise(regions))
            assert regions[0].y == body.y
            assert body.bottom in {region.bottom for region in regions}

    drive(steps, size, FRAMES)


@each_size
def test_no_word_is_clipped(size: tuple[int, int]) -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        assert max(map(len, text_of(app, "banner").splitlines())) <= size[0]
        assert all(key.region.right <= size[0] for key in app.query("FooterKey"))
        for name in PANELS:
            panel = app.query_one(f"#{name}")
            assert "…" not in text_of(app, name), name
            if panel.display:
                assert max(map(len, text_of(app, name).splitlines())) <= panel.content_size.width, name
                assert len(str(panel.border_title)) <= panel.content_size.width - 2, name

    drive(steps, size, FRAMES)


@pytest.mark.parametrize("lines", [24, 40])
def test_the_use_of_the_cpu_is_on_the_first_screen_of_80_columns(lines: int) -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        assert app.query_one("#cpu").region.bottom <= app.query_one("#body").region.bottom

    drive(steps, (80, lines), FRAMES)


@each_size
def test_what_happened_at_once_stands_under_each_other_in_every_chart(size: tuple[int, int]) -> None:
    """Everything rises at the same sample: every chart rises in the same cell."""

    def sample(at: int) -> Snapshot:
        high = at > 250
        rate = 5e8 * high
        return snapshot(
            at,
            used=0.8 * high,
            cpu=Cpu(cpu_percent=80.0 * high),
            network=Network(None, rate, rate),
            workers=PAST[0].workers,
        )

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        rises = set()
        for name in ("memory", "cpu", "traffic"):
            lines = [line for line in text_of(app, name).splitlines() if not line.startswith("cores")]
            rises.add(min(at for line in lines for at, sign in enumerate(line) if sign in "▄▅▆▇█"))
        assert len(rises) == 1
        axes = {name: text_of(app, name).splitlines()[-1][GUTTER_CELLS:] for name in ("memory", "traffic")}
        assert axes["memory"] == axes["traffic"]

    drive(steps, size, past=[sample(at) for at in range(1, 300)])


@each_size
def test_plus_and_minus_change_the_time_that_all_charts_show(size: tuple[int, int]) -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        for key, span in (("plus", "-5 min"), ("minus", "-2 min"), ("minus", "-1 min"), ("minus", "-30 s")):
            await pilot.press(key)
            for name in ("memory", "traffic"):
                assert text_of(app, name).splitlines()[-1][GUTTER_CELLS:].strip().startswith(span)

    drive(steps, size)


def test_the_span_ends_where_the_view_remembers_nothing_more() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press(*["plus"] * 9)
        assert "-1 h" in text_of(app, "memory"), "this view takes a sample an hour"
        await pilot.press(*["minus"] * 9)
        assert "-30 s" in text_of(app, "memory")

    drive(steps, (120, 40))


@each_size
def test_the_chart_of_memory_has_a_scale_and_lines_for_target_limit_and_capacity(size: tuple[int, int]) -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        labels = [" ".join(line[:GUTTER_CELLS].split()) for line in text_of(app, "memory").splitlines()]
        marked = [labels.index(words) for words in ("capacity 16.0 GB", "limit 14.4 GB", "target 13.0 GB", "0")]
        assert marked == sorted(marked)
        assert any(sign in text_of(app, "memory") for sign in "▔▁")

    drive(steps, size)


@each_size
def test_nothing_of_a_dead_sampler_looks_like_now(size: tuple[int, int]) -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        for name in PANELS:
            panel = app.query_one(f"#{name}", Static)
            text = panel.content if panel.display else Text("-", style=GREY)
            assert isinstance(text, Text)
            assert {str(span.style) for span in text.spans} <= {GREY, "reverse"}, name
            grey = sum(span.end - span.start for span in text.spans if span.style == GREY)
            assert grey == len(text.plain) * panel.display, name
            assert not panel.display or str(panel.border_title).endswith(("STALE", "ABSENT")), name
        words = " ".join(text_of(app, name) for name in ("banner", *PANELS)).lower()
        assert not [word for word in ("prune", "critical", "shed work", "no need", " ok ") if word in words]

    drive(steps, size, ("dead", "absent"))


def test_closed_panels_leave_their_lines_to_the_others() -> None:
    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        before = app.query_one("#memory").region.height
        await pilot.press("2", "3")
        await pilot.pause()
        assert app.query_one("#memory").region.height > before
        assert app.query_one("#limits").region.bottom == app.query_one("#body").region.bottom

    drive(steps, (120, 40))
