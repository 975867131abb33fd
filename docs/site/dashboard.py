"""``python -m docs.site.dashboard FOLDER``: the dashboard as a real Chromium shows it, every state in every size.

Without a folder, the pictures of the documentation. The API and the page are the real ones, and so are the 64 workers;
eight GPUs are those of the stand-in for NVML (tests/support/nvml). What the other samplers measure is made up: a
training job in a container of 64 GB.
"""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import shm_monitor as sm
from docs.site.job import JobReadings, job
from tests.support.api_server import ApiProcess, eventually
from tests.support.browser import Scheme, Visit, chromium
from tests.support.nvml_library import StandIn
from tests.support.real_sampler import RealSampler, fast
from tests.support.surroundings import child_environment, remove_files

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES = Path(__file__).parents[1] / "images"
SIZES = (390, 1280, 1920)
SCHEMES: tuple[Scheme, Scheme] = ("light", "dark")
HEIGHTS = {390: 844, 1280: 860, 1920: 1080}
WORKERS = 64
IN_DOCS: tuple[tuple[str, Scheme, str], ...] = (
    ("pressed", "light", "dashboard.webp"),
    ("what-if", "dark", "what-if.webp"),
)  # scene, scheme, name in docs/images
DOCS_WIDTH, DOCS_QUALITY = 1280, 90
DRAWING_MS = 800  # until all charts have their new size


@contextlib.contextmanager
def calm(name: str) -> Iterator[None]:
    """Nothing presses."""
    with job(name, JobReadings(presses=False)):
        yield


@contextlib.contextmanager
def pressed(name: str) -> Iterator[None]:
    """An episode that is over, and a ramp that leads to the end."""
    with job(name, JobReadings(presses=True)):
        yield


@contextlib.contextmanager
def nothing(_: str) -> Iterator[None]:
    """No sampler."""
    yield


@contextlib.contextmanager
def gpus(name: str) -> Iterator[None]:
    """Eight GPUs, as far as NVML knows."""
    with tempfile.TemporaryDirectory() as folder:
        nvml = StandIn.create(Path(folder))
        busy = " ".join(str(number) for number in range(55, 100, 3))
        nvml.script("devices 8", f"nvmlDeviceGetUtilizationRates * series {busy}")
        with environment(nvml.environ), RealSampler(fast(name, check_interval=0.2, history_seconds=60.0)) as sampler:
            sampler.report()
            waiting(name, 60)
            yield
    remove_files(name)


@contextlib.contextmanager
def workers(name: str) -> Iterator[None]:
    """64 of them that present themselves, each with some megabytes of its own."""
    with RealSampler(fast(name, check_interval=0.2, history_seconds=60.0)) as sampler:
        sampler.report()
        crowd = [sys.executable, "-m", "docs.site.crowd", name, str(WORKERS)]
        with subprocess.Popen(crowd, stdin=subprocess.PIPE, env=child_environment()) as process:
            eventually(lambda: len(sm.attach(name).snapshot().present) == WORKERS, 120)
            waiting(name, 60)
            yield
            process.communicate()  # the end of its input is theirs
    remove_files(name)


@contextlib.contextmanager
def environment(settings: dict[str, str]) -> Iterator[None]:
    """Have *settings* in the environment."""
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def waiting(name: str, samples: int) -> None:
    """Return when the ring of *name* has so many."""
    with sm.attach(name) as reader:
        eventually(lambda: reader.snapshot().sequence >= samples, 120)


class Scene(NamedTuple):
    """One state of the page.

    Args:
        sampler: what stands behind it.
        dies: whether it does when the page is open.
        tries: whether a lower limit is tried in the page.
        until: what is to be seen before a picture is taken.
    """

    sampler: Callable[[str], contextlib.AbstractContextManager[None]]
    dies: bool = False
    tries: bool = False
    until: str = "#cards .js-plotly-plot .scatterlayer path"


SCENES = {
    "calm": Scene(calm),
    "pressed": Scene(pressed),
    "dead": Scene(pressed, dies=True),
    "what-if": Scene(pressed, tries=True),
    "empty": Scene(nothing, until="#empty-command"),
    "gpus": Scene(gpus),
    "workers": Scene(workers),
}


@contextlib.contextmanager
def opened(browser: Browser, scene: str) -> Iterator[Page]:
    """Have the page that shows *scene*."""
    name = f"{scene}-job"
    chosen = SCENES[scene]
    with contextlib.ExitStack() as stack:
        alive = stack.enter_context(contextlib.ExitStack())
        alive.enter_context(chosen.sampler(name))
        server = stack.enter_context(ApiProcess("--name", name, "--bind", "127.0.0.1:0"))
        page = stack.enter_context(Visit(browser)).open(server.url, until="#empty" if scene == "empty" else "#shown")
        page.locator(chosen.until).first.wait_for(state="attached")
        if chosen.dies:
            alive.close()
            page.locator("#banner").wait_for()
        if chosen.tries:
            try_lower(page)
        yield page


def try_lower(page: Page) -> None:
    """Open the what-if of *page*, and ask for a limit of 52 GB."""
    page.get_by_text("What if?").click()
    page.locator("#what-if-told").filter(has_text="These settings:").wait_for()
    move = "(one) => { one.value = 52 * 1024; one.dispatchEvent(new Event('input')); }"
    page.locator("#what-if-value").evaluate(move)
    page.locator("#what-if-env").filter(has_text="MAX_MEMORY_USAGE_MB=").wait_for()


def take(browser: Browser, folder: Path, scene: str) -> list[Path]:
    """Write the pictures of *scene* into *folder*, and return them."""
    with opened(browser, scene) as page:
        return [
            pictured(page, folder / f"{scene}-{width}-{scheme}.png", width, scheme)
            for width in SIZES
            for scheme in SCHEMES
        ]


def pictured(page: Page, path: Path, width: int, scheme: Scheme) -> Path:
    """Write the whole *page* as a window of *width* shows it to *path*, and return that."""
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": HEIGHTS[width]})
    # A window that is as high as the page: charts that are out of sight are not drawn.
    page.set_viewport_size({"width": width, "height": page.evaluate("document.documentElement.scrollHeight")})
    page.wait_for_timeout(DRAWING_MS)
    page.screenshot(path=path)
    return path


def published(page: Page, path: Path, scheme: Scheme) -> None:
    """Write what a window shows of *page*, scrolled to the what-if where that is open, to *path*, small."""
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": DOCS_WIDTH, "height": HEIGHTS[DOCS_WIDTH]})
    page.wait_for_timeout(DRAWING_MS)
    tried = page.locator("#what-if[open]")
    box = tried.bounding_box() if tried.count() else None
    if box is not None:
        page.set_viewport_size({"width": DOCS_WIDTH, "height": round(box["height"]) + 90})
        tried.evaluate("(one) => scrollTo(0, one.getBoundingClientRect().top + scrollY - 62)")
        page.wait_for_timeout(DRAWING_MS)
    asked = {"format": "webp", "quality": DOCS_QUALITY}  # a PNG is twice as large
    path.write_bytes(base64.b64decode(page.context.new_cdp_session(page).send("Page.captureScreenshot", asked)["data"]))


def main(arguments: list[str]) -> None:
    """Write all pictures into a folder, or those of the documentation."""
    with chromium() as browser:
        if not arguments:
            for scene, scheme, image in IN_DOCS:
                with opened(browser, scene) as page:
                    published(page, IMAGES / image, scheme)
            return
        folder = Path(arguments[0])
        folder.mkdir(parents=True, exist_ok=True)
        for scene in arguments[1:] or SCENES:
            print(*take(browser, folder, scene), sep="\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
