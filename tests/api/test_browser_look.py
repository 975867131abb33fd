"""How the dashboard looks in a real Chromium: labels, colours, widths, times, and the crosshair over all charts."""

from __future__ import annotations

import itertools
import os
import re
import signal
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import shm_monitor as sm
from docs.site.job import JobReadings, job
from shm_monitor.worker.injecting import inject
from tests.support.api_server import ApiProcess, eventually
from tests.support.browser import Visit, chromium, drawn, hues
from tests.support.real_sampler import RealSampler, fast
from tests.support.surroundings import remove_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

NAME = f"test-look-{os.getpid()}"
TEAL, BLUE = 5, 7  # twelfths of the circle of colours: the first two lines of a chart
GB = 2**30

# Of each chart that is shown: the moment of its crosshair and how much time a pixel is, in ms; null without crosshair.
CROSSED = """() => [...document.querySelectorAll(".chart")].filter((one) => one.checkVisibility()).map((chart) => {
    const line = chart.querySelector(".crosshair:not([hidden])");
    const inMs = (one) => typeof one === "number" ? one : Date.parse(one.replace(" ", "T") + "Z");
    const [from, to] = chart.layout.xaxis.range.map(inMs);
    const { left, width } = chart.querySelector(".nsewdrag").getBoundingClientRect();
    const pixel = (to - from) / width;
    return line && { moment: from + (line.getBoundingClientRect().left - left) * pixel, pixel };
})"""

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


class EqualReadings(JobReadings):
    """A training job that has the machine for itself: what is ours is all."""

    def at(self, second: int) -> None:
        super().at(second)
        self.values["cpu.host_cpu_percent"] = self.values["cpu.cpu_percent"]
        self.values["network.transmit_bytes_per_second"] = self.values["network.receive_bytes_per_second"]
        self.values["disk.read_bytes_per_second"] = 0.0
        self.values["disk.write_bytes_per_second"] = 40.0 * 2**20


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def server(browser: Browser) -> Iterator[ApiProcess]:
    """The API of a job whose limit and target are close to each other."""
    with (
        job(NAME, EqualReadings(presses=True), target_utilization=0.98),
        ApiProcess("--name", NAME, "--bind", "127.0.0.1:0") as started,
    ):
        yield started


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    with Visit(browser) as made:
        yield made
        assert made.errors == []


@pytest.fixture
def page(visit: Visit, server: ApiProcess) -> Page:
    return whole(drawn(visit.open(server.url)))


def whole(page: Page) -> Page:
    """Make the window of *page* as high as it is, so that every chart is drawn."""
    assert page.viewport_size is not None
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": page.viewport_size["width"], "height": height})
    all_drawn = "() => [...document.querySelectorAll('.chart')].every((one) => !one.checkVisibility() || one.layout)"
    eventually(lambda: page.evaluate(all_drawn), 60)
    return page


def boxes(page: Page, selector: str) -> list[dict[str, Any]]:
    """Return text, left, right, top and bottom of what *selector* finds and is shown."""
    found: list[dict[str, Any]] = page.evaluate(
        """(selector) => [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility()).map((one) => {
            const { left, right, top, bottom } = one.getBoundingClientRect();
            return { text: one.textContent, left, right, top, bottom };
        })""",
        selector,
    )
    return found


def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(
        one["left"] < other["right"]
        and other["left"] < one["right"]
        and one["top"] < other["bottom"]
        and other["top"] < one["bottom"]
    )


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_labels_of_lines_that_are_close_do_not_overlap(browser: Browser, server: ApiProcess, width: int) -> None:
    with Visit(browser, width=width) as visit:
        page = whole(drawn(visit.open(server.url)))
        labels = boxes(page, ".chart .annotation-text")
        cards = boxes(page, "#cards article")

    assert [one["text"] for one in labels].count("capacity") == 2
    assert [(a["text"], b["text"]) for a, b in itertools.combinations(labels, 2) if overlap(a, b)] == []
    for label in labels:
        assert any(card["left"] < label["left"] and label["right"] < card["right"] for card in cards), label


def test_two_lines_that_are_equal_are_both_seen(page: Page) -> None:
    for card in ("cpu", "network"):
        counts = hues(page, page.locator(f"[aria-labelledby=title-{card}] .chart").first.screenshot())

        assert counts[BLUE] > 1000, card
        assert counts[TEAL] > 5000, card


def test_nothing_is_said_in_the_console(visit: Visit, server: ApiProcess) -> None:
    said: list[str] = []
    visit.page.on("console", lambda message: said.append(message.text))
    page = drawn(visit.open(server.url))
    for summary in page.locator("summary:visible").all():
        summary.click()
    whole(page)
    page.locator("#what-if-told").filter(has_text="These settings:").wait_for()

    assert said == []


def test_the_policy_allows_no_inline_script_and_two_styles_by_their_content(server: ApiProcess) -> None:
    policy = httpx.get(server.url).headers["content-security-policy"]
    parts = {name: values.split() for name, _, values in (part.strip().partition(" ") for part in policy.split(";"))}

    assert parts["default-src"] == ["'self'"]
    assert "script-src" not in parts
    assert [value[:8] for value in parts["style-src"]] == ["'self'", "'sha256-"]
    assert [value[:8] for value in parts["style-src-attr"]] == ["'unsafe-", "'sha256-", "'sha256-"]
    assert "'unsafe-inline'" not in policy


def test_the_disk_shows_both_rates_and_their_sum(page: Page) -> None:
    disk = page.locator("[aria-labelledby=title-disk]")

    assert disk.locator(".detail").inner_text() == "0 B/s read, 40.0 MB/s written"
    assert disk.locator(".now").inner_text() == "40.0 MB/s"


def test_every_time_is_written_as_on_the_axes(page: Page) -> None:
    for summary in page.locator("summary:visible").all():
        summary.click()
    page.locator("#episodes tr").first.wait_for()
    page.locator("[aria-labelledby=title-cpu] tbody tr").first.wait_for()
    page.locator("[aria-labelledby=title-cpu] .nsewdrag").first.hover()
    page.locator("[aria-labelledby=title-cpu] .hoverlayer .legend").wait_for()
    text = page.locator("body").inner_text() + " ".join(page.locator(".chart text").all_text_contents())
    times = re.findall(r"\d+:\d\d(?::\d\d)?(?:\s?[AP]M)?", text)

    assert len(times) > 20
    assert [one for one in times if not re.fullmatch(r"[0-2]\d:\d\d(:\d\d)?", one)] == []
    assert re.fullmatch(r"\d\d [A-Z][a-z]{2} \d\d:\d\d:\d\d", page.locator("#episodes th").first.inner_text())


def test_one_crosshair_goes_through_all_charts_at_the_same_moment(page: Page) -> None:
    for name in ("Cores", "Interfaces", "What if?"):
        page.get_by_text(name, exact=name != "What if?").click()
    page.locator("#what-if-told").filter(has_text="These settings:").wait_for()
    whole(page)
    page.locator("#timeline").hover()
    eventually(lambda: None not in (moments := page.evaluate(CROSSED)) and moments, 60)
    found = page.evaluate(CROSSED)
    assert len(found) == 10  # six cards, cores, interfaces, episodes, what-if
    first = found[0]
    for one in found:
        assert abs(one["moment"] - first["moment"]) <= 2 * max(one["pixel"], first["pixel"])
    page.locator("h1").hover()
    page.locator(".crosshair").first.wait_for(state="hidden")
    assert boxes(page, ".crosshair") == []


def test_a_telephone_needs_no_scrolling_to_the_side(browser: Browser, server: ApiProcess) -> None:
    """Of no table either: each cell of the limits is inside of the window, under its heading."""
    with Visit(browser, width=390) as visit:
        page = drawn(visit.open(server.url))
        for summary in page.locator("summary:visible").all():
            summary.click()
        page.locator("#what-if-told").filter(has_text="These settings:").wait_for()
        page.locator("#episodes tr").first.wait_for()
        scrolled = (
            "() => [...document.querySelectorAll('.scroll, html')].filter((one) => one.scrollWidth > one.clientWidth)"
            ".map((one) => one.ariaLabel ?? 'page')"
        )
        assert page.evaluate(scrolled) == []
        cells = boxes(page, "#limits td, #limits th")
        heading = "getComputedStyle(document.querySelector('#limits td'), '::before').content"
        assert page.evaluate(heading) == '"level"'

    assert len(cells) >= 3 * 6
    assert all(cell["left"] >= 0 and cell["right"] <= 390 for cell in cells)


def test_a_large_screen_is_used(browser: Browser, server: ApiProcess) -> None:
    """All cards and the limits are on one screen; each row of cards is full, and none stands alone."""
    with Visit(browser, width=1920, height=1080) as visit:
        page = drawn(visit.open(server.url))
        cards = boxes(page, "#cards article")
        limits = boxes(page, "#limits")

    rows = [list(row) for _, row in itertools.groupby(cards, key=lambda card: card["top"])]
    assert [len(row) for row in rows] == [3, 3]
    assert all(row[0]["left"] < 20 and row[-1]["right"] > 1900 for row in rows)
    assert limits[0]["bottom"] < 1080


def test_a_dead_sampler_has_no_colours_and_is_not_live(visit: Visit, name: str) -> None:
    """Whether it dies before the eyes of somebody or has died before: every number and chart is grey."""
    with RealSampler(fast(name)) as sampler, ApiProcess("--name", name, "--bind", "127.0.0.1:0") as server:
        sampler.report()
        page = drawn(visit.open(server.url))
        colour = "(selector) => getComputedStyle(document.querySelector(selector)).color"
        alive = [page.evaluate(colour, selector) for selector in (".now", "#limits td:nth-child(3)")]
        assert sum(hues(page, page.locator("#cards").screenshot())) > 200
        sampler.process.send_signal(signal.SIGKILL)
        for _ in range(2):
            page.locator("#banner").wait_for()
            whole(page)

            assert hues(page, page.locator("#shown").screenshot()) == [0] * 12
            dead = [page.evaluate(colour, selector) for selector in (".now", "#limits td:nth-child(3)")]
            assert not set(dead) & set(alive)
            assert page.locator("#live").get_attribute("aria-pressed") == "false"
            assert page.locator("#live").is_disabled()
            assert page.locator("#sample").inner_text().startswith("last sample ")
            page.reload()
            drawn(page)


def test_the_age_of_a_sample_is_true_while_memory_is_sampled_more_often(visit: Visit, name: str) -> None:
    """What was sampled between two turns is memory alone: the age of the rest stands beside it."""
    with (
        RealSampler(fast(name, check_interval=5.0, observation_period=10.0, allow_injection=True)) as sampler,
        ApiProcess("--name", name, "--bind", "127.0.0.1:0") as server,
    ):
        sampler.report()
        page = drawn(visit.open(server.url))
        assert re.fullmatch(r"sample \d+, .* ago, one every 5 s", page.locator("#sample").inner_text())
        (limit,) = (one for one in sm.attach(name).snapshot().limits if one.limit == "memory:host")
        inject(sm.attach(name), {limit.metric: (limit.capacity or 0) * 0.985}, seconds=60.0)
        said = r"sample \d+: memory (?:less than 1|\d+) s ago, every 0\.\d+ s now; the rest (\d+) s ago, every 5 s"

        def is_true() -> bool:
            found = re.fullmatch(said, page.locator("#sample").inner_text())
            age = sm.attach(name).snapshot().sampler.collectors["cpu"].last_ok_age_seconds
            return found is not None and age is not None and abs(int(found[1]) - age) < 1.5

        eventually(is_true, 60)
    remove_files(name)


@pytest.mark.parametrize(
    ("seconds_between", "since", "text"),
    [
        (1.0, 0.3, "sample 7, less than 1 s ago, one every 1 s"),
        (1.0, 3.0, "sample 7, 3 s ago, one every 1 s"),
        (None, 0.3, "sample 7, less than 1 s ago, one every 1 s"),
        (0.031, 0.3, "sample 7: memory less than 1 s ago, every 0.03 s now; the rest 1 s ago, every 1 s"),
        (0.25, 200.0, "sample 7: memory 3 min ago, every 0.3 s now; the rest 3 min ago, every 1 s"),
    ],
)
def test_the_age_grows_while_no_sample_comes(
    page: Page, seconds_between: float | None, since: float, text: str
) -> None:
    snapshot = {
        "sequence": 7,
        "age_seconds": 0.5,
        "interval_seconds": 1,
        "sampler": {
            "interval_seconds": seconds_between,
            "collectors": {"memory": {"last_ok_age_seconds": 0.0}, "cpu": {"last_ok_age_seconds": 0.9}},
        },
    }
    said = page.evaluate(
        "async ([snapshot, since]) => (await import('/format.js')).sampleAge(snapshot, since, false)", [snapshot, since]
    )

    assert said == text
