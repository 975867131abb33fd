"""A real Chromium, and the dashboard in it."""

from __future__ import annotations

import base64
import contextlib
import shutil
import tempfile
from typing import TYPE_CHECKING, Any, Literal, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")
PATIENCE_MS = 60_000.0  # on a machine that is busy with something else
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
Scheme = Literal["light", "dark"]


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Have a browser with an empty profile of its own; skip where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed; try: apt-get install chromium")
    with playwright.sync_playwright() as driver, tempfile.TemporaryDirectory() as home:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=FLAGS, env={"HOME": home, "PATH": "/usr/bin:/bin"}
        )
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """One page, and what went wrong in it.

    Attributes:
        page: of playwright.
        errors: exceptions of its scripts, and what its policy refused of ours.
    """

    def __init__(self, browser: Browser, *, width: int = 1280, height: int = 900, scheme: Scheme = "light") -> None:
        """Open a window with nothing in it yet."""
        self._context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self._context.set_default_timeout(PATIENCE_MS)
        self.page: Page = self._context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, url: str, *, until: str = "#shown") -> Page:
        """Load *url* and wait until the element *until* is to be seen."""
        self.page.goto(url, wait_until="domcontentloaded")
        self.page.locator(until).wait_for()
        return self.page

    def close(self) -> None:
        """Leave the page."""
        self._context.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def drawn(page: Page) -> Page:
    """Wait until plotly.js has drawn the chart that is seen first."""
    page.locator("#cards .js-plotly-plot .scatterlayer path").first.wait_for(state="attached")
    return page


def range_of(page: Page, card: str = "cpu") -> tuple[float, float]:
    """Return the ends of the time axis of *card*, in milliseconds."""
    ends: list[Any] = page.evaluate(
        """(card) => {
            const { layout } = document.querySelector(`[aria-labelledby="title-${card}"] .chart`);
            const inMs = (one) => typeof one === "number" ? one : Date.parse(one.replace(" ", "T") + "Z");
            return layout.xaxis.range.map(inMs);
        }""",
        card,
    )
    return float(ends[0]), float(ends[1])


def violations(page: Page) -> list[str]:
    """Return what axe-core has against *page*, by WCAG 2.2 AA and the good practices it knows."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page).response["violations"]
    return [f"{one['id']}: {[node['target'] for node in one['nodes']]}" for one in found]


def hues(page: Page, png: bytes) -> list[int]:
    """Return how many pixels of *png* are in each twelfth of the circle of colours; grey ones are in none."""
    blank = page.context.new_page()
    try:
        counts: list[int] = blank.evaluate(
            """async (data) => {
                const picture = await createImageBitmap(await (await fetch(`data:image/png;base64,${data}`)).blob());
                const canvas = new OffscreenCanvas(picture.width, picture.height).getContext("2d");
                canvas.drawImage(picture, 0, 0);
                const { data: pixels } = canvas.getImageData(0, 0, picture.width, picture.height);
                const counts = new Array(12).fill(0);
                for (let at = 0; at < pixels.length; at += 4) {
                    const [red, green, blue] = pixels.slice(at, at + 3);
                    const most = Math.max(red, green, blue);
                    const spread = most - Math.min(red, green, blue);
                    if (spread < 16) continue;
                    const steps = [6 + (green - blue) / spread, 2 + (blue - red) / spread, 4 + (red - green) / spread];
                    counts[Math.floor(2 * (steps[[red, green, blue].indexOf(most)] % 6))] += 1;
                }
                return counts;
            }""",
            base64.b64encode(png).decode(),
        )
        return counts
    finally:
        blank.close()
