"""The dashboard in a real Chromium: what people see, do and are told."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import shm_monitor as sm
from docs.site import dashboard
from shm_monitor.segment import injection
from shm_monitor.traces.replay import decide_over
from shm_monitor.traces.report import Tried, html
from shm_monitor.worker.injecting import inject
from tests.support.api_server import TOKEN, ApiProcess, eventually
from tests.support.browser import PATIENCE_MS, Visit, chromium, drawn, range_of, violations
from tests.support.engine import Settings
from tests.support.real_sampler import RealSampler, fast
from tests.support.surroundings import remove_files
from tests.traces.test_replay import GPU, step_up, trace_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

NAME = f"test-dashboard-{os.getpid()}"

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def sampler(browser: Browser) -> Iterator[RealSampler]:
    """A real one, five times a second, that takes injections."""
    config = fast(NAME, check_interval=0.2, history_seconds=120.0, allow_injection=True)
    with RealSampler(config) as started:
        started.report()
        yield started
    remove_files(NAME)


@pytest.fixture(scope="module")
def server(sampler: RealSampler) -> Iterator[ApiProcess]:
    with ApiProcess("--name", NAME, "--bind", "127.0.0.1:0") as started:
        yield started


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    with Visit(browser) as made:
        yield made
        assert made.errors == []


@pytest.fixture
def page(visit: Visit, server: ApiProcess) -> Page:
    return drawn(visit.open(server.url))


def sequence_of(page: Page) -> int:
    text = page.locator("#sample").inner_text()
    return int(text.split()[1].rstrip(",:"))


def test_the_numbers_and_the_charts_go_on_by_themselves(page: Page) -> None:
    first, end = sequence_of(page), range_of(page)[1]

    eventually(lambda: sequence_of(page) > first + 5, 60)
    eventually(lambda: range_of(page)[1] > end + 1000, 60)
    assert page.locator("#verdict").inner_text() == "ok"
    assert page.title() == f"OK · shm-monitor {NAME}"


def test_processes_have_names_and_ours_are_marked(page: Page) -> None:
    ours = page.locator("#processes .own").filter(has_text="shm-monitor sampler")
    ours.first.wait_for()

    assert "chromium" in page.locator("#processes").inner_text()


def test_dragging_across_a_chart_zooms_all_of_them_and_a_button_goes_back(page: Page) -> None:
    box = page.locator("[aria-labelledby=title-cpu] .nsewdrag").first.bounding_box()
    assert box is not None
    before = range_of(page)
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 42, steps=6)
    page.mouse.up()
    eventually(lambda: range_of(page)[1] < before[1], 60)

    zoomed = range_of(page)
    assert zoomed[1] - zoomed[0] == pytest.approx((before[1] - before[0]) / 2, rel=0.2)
    eventually(lambda: range_of(page, "network") == pytest.approx(zoomed, abs=5), 60)
    assert page.locator("#live").get_attribute("aria-pressed") == "false"
    page.locator("#live").click()
    eventually(lambda: range_of(page)[1] > zoomed[1], 60)


def test_hovering_shows_the_same_moment_in_the_other_charts(page: Page) -> None:
    page.locator("[aria-labelledby=title-cpu] .nsewdrag").first.hover()

    page.locator(
        "[aria-labelledby=title-network] .hoverlayer .legend, [aria-labelledby=title-network] .hovertext"
    ).first.wait_for()


def test_a_minute_and_the_whole_ring_can_be_chosen(page: Page) -> None:
    page.get_by_role("button", name="1 min").click()
    eventually(lambda: 59_000 < range_of(page)[1] - range_of(page)[0] < 62_000, 60)
    page.get_by_role("button", name="All").click()
    assert page.get_by_role("button", name="All").get_attribute("aria-pressed") == "true"


def test_cores_and_interfaces_come_when_asked_for(page: Page) -> None:
    page.get_by_text("Cores", exact=True).click()
    page.locator("[aria-labelledby=title-cpu] .heatmaplayer image").first.wait_for(state="attached")
    page.get_by_text("Interfaces", exact=True).click()
    page.locator("[aria-labelledby=title-network] details .scatterlayer path").first.wait_for(state="attached")


def test_pressure_is_said_first_and_shaded(page: Page, server: ApiProcess) -> None:
    limit = next(
        one for one in httpx.get(f"{server.url}/snapshot").json()["limits"] if one["limit"].startswith("memory")
    )
    inject(sm.attach(NAME), {limit["metric"]: limit["capacity"] * 0.985}, seconds=60.0)
    page.locator("#reasons-part").wait_for()

    assert limit["limit"] in page.locator("#reasons").inner_text()
    assert "shed work" in page.locator("#verdict").inner_text()
    assert "CRITICAL" in page.title() or "PRUNE" in page.title()
    assert limit["metric"] in page.locator("#injected").inner_text()
    shades = f'[aria-labelledby="title-{limit["limit"]}"] .chart'
    asked = "(place) => document.querySelector(place).layout.shapes.some((one) => one.type === 'rect')"
    eventually(lambda: page.evaluate(asked, shades), 60)
    assert violations(page) == []
    injection.end(NAME)
    page.locator("#reasons-part").wait_for(state="hidden")


def test_what_if_draws_what_would_have_been_and_gives_the_lines_to_keep(page: Page, server: ApiProcess) -> None:
    page.get_by_text("What if?").click()
    page.locator("#what-if-told").filter(has_text="These settings:").wait_for()
    slider = page.locator("#what-if-value")
    slider.evaluate("(one) => { one.value = one.min; one.dispatchEvent(new Event('input')); }")
    page.locator("#what-if-env").filter(has_text="MAX_MEMORY_USAGE_MB=").wait_for()
    page.locator("#what-if-chart .shapelayer path[fill-rule]").first.wait_for(state="attached")

    line = page.locator("#what-if-env").inner_text()
    value = line.partition("=")[2]
    answer = httpx.get(f"{server.url}/replay", params={"max_memory_usage_mb": value}, timeout=60).json()
    assert answer["env"] == [line]
    assert answer["would"]["limits"][0]["episodes"] != []
    assert "These settings: 1 episode" in page.locator("#what-if-told").inner_text()
    assert violations(page) == []


def test_everything_can_be_done_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the readings"
    tab_to(page, "zoom in")
    before = range_of(page)
    page.keyboard.press("Enter")
    eventually(lambda: range_of(page)[1] - range_of(page)[0] < (before[1] - before[0]) * 0.7, 60)
    tab_to(page, "Live")
    page.keyboard.press("Space")
    tab_to(page, "Table of CPU")
    page.keyboard.press("Enter")
    page.locator("[aria-labelledby=title-cpu] tbody tr").first.wait_for()
    tab_to(page, "What if? Try other settings on the same samples")
    page.keyboard.press("Enter")
    page.locator("#what-if-told").filter(has_text="These settings:").wait_for()
    tab_to(page, "observation_period")
    page.keyboard.press("ArrowRight")
    page.locator("#what-if-env").filter(has_text="OBSERVATION_PERIOD=").wait_for()


def focused(page: Page) -> str:
    name: str = page.evaluate(
        "() => { const one = document.activeElement; return one.ariaLabel ?? (one.textContent.trim() || one.id); }"
    )
    return name


def tab_to(page: Page, name: str) -> None:
    for _ in range(60):
        if focused(page) == name:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{name!r} is not reached by Tab")


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark"), (1920, "light")])
def test_nothing_stands_in_the_way_of_anybody(browser: Browser, server: ApiProcess, width: int, scheme: Any) -> None:
    """axe-core finds nothing, and no page is wider than the window."""
    with Visit(browser, width=width, scheme=scheme) as visit:
        page = drawn(visit.open(server.url))
        for summary in page.locator("summary:visible").all():
            summary.click()
        page.locator("#what-if-told").filter(has_text="These settings:").wait_for()

        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_theme_is_chosen_and_remembered(page: Page) -> None:
    page.locator("#theme").select_option("dark")
    page.reload()

    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.locator("#theme").input_value() == "dark"


def test_without_plotly_there_are_lines_and_what_to_install(visit: Visit, server: ApiProcess) -> None:
    visit.page.route("**/plotly-*", lambda route: route.abort())
    page = visit.open(server.url)
    page.locator("#cards .chart > svg path").first.wait_for(state="attached")

    assert page.get_by_text("shm-monitor[charts]").is_visible()
    assert page.locator(".js-plotly-plot").count() == 0


def test_the_token_is_asked_for_and_kept_in_memory_alone(browser: Browser, sampler: RealSampler) -> None:
    with (
        ApiProcess("--name", NAME, "--bind", "127.0.0.1:0", environ={"SHM_MONITOR_TOKEN": TOKEN}) as server,
        Visit(browser) as visit,
    ):
        page = visit.open(server.url, until="#login")
        assert violations(page) == []
        page.locator("#token").fill("not-the-token-at-all")
        page.keyboard.press("Enter")
        page.get_by_text("The API refused this token.").wait_for()
        page.locator("#token").fill(TOKEN)
        page.keyboard.press("Enter")
        drawn(page)
        kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])")
        page.reload()
        page.locator("#login").wait_for()

    assert TOKEN not in kept
    assert visit.errors == []


def test_an_empty_page_says_how_to_start_and_goes_on_by_itself(visit: Visit, name: str) -> None:
    with ApiProcess("--name", name, "--bind", "127.0.0.1:0") as server:
        page = visit.open(server.url, until="#empty")
        assert page.locator("#empty-command").inner_text() == f"shm-monitor run --name {name}"
        assert page.locator("#verdict").inner_text() == "no sampler"
        assert violations(page) == []
        with RealSampler(fast(name)) as late:
            late.report()
            drawn(page)

            assert page.locator("#empty").is_hidden()


def test_a_dead_sampler_is_no_verdict(visit: Visit, name: str) -> None:
    with RealSampler(fast(name)) as sampler, ApiProcess("--name", name, "--bind", "127.0.0.1:0") as server:
        sampler.report()
        page = drawn(visit.open(server.url))
        sampler.process.send_signal(signal.SIGKILL)
        page.locator("#banner").wait_for()

        assert "No sample since" in page.locator("#banner").inner_text()
        assert page.locator("#reasons-part").is_hidden()
        assert page.locator("#verdict").inner_text() == "unknown"
        assert {cell.inner_text() for cell in page.locator("#limits td:nth-child(2)").all()} == {"unknown"}
        assert page.title() == f"UNKNOWN · shm-monitor {name}"
        assert page.locator("#icon").get_attribute("href") == "icon-dead.svg"
        end = range_of(page)
        page.wait_for_timeout(2500)
        assert range_of(page) == end
        assert violations(page) == []
        page.get_by_text("What if?").click()  # the ring of one that was killed is still there
        page.locator("#what-if-told").filter(has_text="These settings:").wait_for()


def test_a_lost_connection_is_said_and_made_again(visit: Visit, sampler: RealSampler) -> None:
    with ApiProcess("--name", NAME, "--bind", "127.0.0.1:0") as server:
        page = drawn(visit.open(server.url))
        port = server.port
        assert server.stop() == 0
        page.locator("#banner").filter(has_text="connection to the API is lost").wait_for()
        with ApiProcess("--name", NAME, "--bind", f"127.0.0.1:{port}"):
            page.locator("#banner").wait_for(state="hidden", timeout=PATIENCE_MS)
            first = sequence_of(page)
            eventually(lambda: sequence_of(page) > first, 60)


def test_nothing_is_asked_of_another_host_and_nothing_runs_inline(visit: Visit, server: ApiProcess) -> None:
    asked: list[str] = []
    refused: list[str] = []
    visit.page.on("request", lambda request: asked.append(request.url))
    visit.page.on("console", lambda message: refused.append(message.text))
    drawn(visit.open(server.url))
    time.sleep(0.5)

    assert [url for url in asked if not url.startswith((server.url, "data:"))] == []
    # plotly.js brings the style of its maps along, which no chart here needs.
    assert [text for text in refused if "script" in text] == []


def test_the_page_of_a_replay_has_the_same_charts_and_zooms_them_together(visit: Visit, tmp_path: Path) -> None:
    trace = trace_of(step_up())
    lower = Settings(max_memory_usage_mb=50.0)
    tried = [Tried(name, config, decide_over(trace, config)) for name, config in (("now", GPU), ("lower.env", lower))]
    file = tmp_path / "replay.html"
    file.write_text(html(*tried), encoding="utf-8")
    page = visit.open(file.as_uri(), until="h1")
    charts = page.locator(".js-plotly-plot")
    charts.nth(1).locator(".nsewdrag").first.wait_for()
    box = charts.nth(1).locator(".nsewdrag").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 42, steps=6)
    page.mouse.up()

    ranges = "() => [...document.querySelectorAll('.js-plotly-plot')].map((one) => one.layout.xaxis.range[0])"
    eventually(lambda: all(begin > 10 for begin in page.evaluate(ranges)), 60)
    assert page.title().startswith("shm-monitor replay: ")
    assert violations(page) == []


@pytest.mark.skipif(not dashboard.IMAGES.exists(), reason="the pictures of a checkout lie beside it")
@pytest.mark.parametrize("scene", dashboard.SCENES)
def test_a_picture_of_each_state_can_be_taken(browser: Browser, scene: str, tmp_path: Path) -> None:
    """Those of the documentation are made so: ``python -m docs.site.dashboard``."""
    taken = dashboard.take(browser, tmp_path, scene)

    assert [path.name for path in taken] == [
        f"{scene}-{width}-{scheme}.png" for width in dashboard.SIZES for scheme in dashboard.SCHEMES
    ]
    for path in taken:
        data = path.read_bytes()
        assert int.from_bytes(data[16:20], "big") == int(path.name.split("-")[-2])  # the width (PNG, 11.2.2)
        assert len(data) > 20_000
