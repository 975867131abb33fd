"""What does one open dashboard cost, at one sample a second? Seconds of CPU, so that a busy machine changes little.

``python -m bench.dashboard [SECONDS]``: of the API with nobody looking and with one page open, of all processes of the
browser, and how long it takes until the page can be used (wall time, and CPU time of the browser until then).
"""

from __future__ import annotations

import json
import os
import sys
import time

import psutil

from tests.support.api_server import ApiProcess
from tests.support.browser import Visit, chromium, drawn
from tests.support.real_sampler import RealSampler, fast
from tests.support.surroundings import remove_files

SETTLING_SECONDS = 20.0  # after the load: compilation in the background, caches


def cpu_seconds(*processes: psutil.Process) -> float:
    """Return what *processes* have used so far."""
    spent = 0.0
    for one in processes:
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        spent += times.user + times.system
    return spent


def browser_processes() -> list[psutil.Process]:
    """Return the processes of the browser that this one has started."""
    return [one for one in psutil.Process().children(recursive=True) if "chrom" in one.name()]


def measure(seconds: float) -> dict[str, float]:
    """Return the shares of a core in percent, and the seconds of the load."""
    name = f"bench-dashboard-{os.getpid()}"
    found: dict[str, float] = {}
    with RealSampler(fast(name, check_interval=1.0, observation_period=10.0, history_seconds=300.0)) as sampler:
        sampler.report()
        with ApiProcess("--name", name, "--bind", "127.0.0.1:0") as server, chromium() as browser:
            api = psutil.Process(server.process.pid)
            before = cpu_seconds(api)
            time.sleep(seconds)
            found["api_idle_percent"] = 100 * (cpu_seconds(api) - before) / seconds
            with Visit(browser) as visit:
                visit.page.goto("about:blank")
                spent, begin = cpu_seconds(*browser_processes()), time.monotonic()
                visit.open(server.url)
                found["usable_seconds"] = time.monotonic() - begin
                found["usable_cpu_seconds"] = cpu_seconds(*browser_processes()) - spent
                drawn(visit.page)
                found["drawn_seconds"] = time.monotonic() - begin
                found["drawn_cpu_seconds"] = cpu_seconds(*browser_processes()) - spent
                time.sleep(SETTLING_SECONDS)
                running = browser_processes()
                spent, before, begin = cpu_seconds(*running), cpu_seconds(api), time.monotonic()
                time.sleep(seconds)
                lasted = time.monotonic() - begin
                found["api_open_percent"] = 100 * (cpu_seconds(api) - before) / lasted
                found["browser_percent"] = 100 * (cpu_seconds(*running) - spent) / lasted
    remove_files(name)
    return {key: round(value, 3) for key, value in found.items()}


if __name__ == "__main__":
    print(json.dumps(measure(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0), indent=1))
