"""What the integrations cost, and how soon they let go: the table in docs/integrations.md.

``python -m bench.integrations docs/integrations.md`` measures what can be measured with the frameworks that are
installed, and leaves the other lines as they are: run it in .venv (make test-frameworks) and in .venv-torch (make
test-torch). Both sides of a ratio are measured in turns in the same run.
"""

from __future__ import annotations

import importlib.util
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import shm_monitor as sm
from bench.stage import new_name, published
from shm_monitor.worker.injecting import inject
from tests.support.load_cgroup import sampler

BEGIN, END = "<!-- written by python -m bench.integrations -->\n", "<!-- end of what it writes -->\n"
HEAD = "| | measured | allowed | as a ratio, in the same run |\n|---|---:|---:|---|\n"
ROUNDS, REQUESTS = 200, 500
RANKS, EVERY, STEP_SECONDS = 4, 8, 0.01
EPISODES, LOOK_SECONDS, LONGEST_SECONDS = 10, 0.002, 30.0


class Row(NamedTuple):
    """One line of the table."""

    what: str
    measured: str
    allowed: str
    ratio: str

    def __str__(self) -> str:
        return f"| {self.what} | {self.measured} | {self.allowed} | {self.ratio} |"


def asgi() -> Iterator[Row]:
    """What does a request cost more while it is calm? Coroutines that never wait need no loop to run."""
    from shm_monitor.integrations.asgi import ShedMiddleware

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async def nothing(*_: object) -> dict[str, Any]:
        return {}

    scope = {"type": "http", "path": "/items", "method": "GET"}

    def seconds_of(one: Any) -> float:
        began = time.perf_counter()
        for _ in range(REQUESTS):
            try:
                one(scope, nothing, nothing).send(None)
            except StopIteration:
                continue
        return (time.perf_counter() - began) / REQUESTS

    with new_name() as name, published(name), sm.attach(name, watch=["memory"]) as reader:
        guarded = ShedMiddleware(app, reader=reader)
        pairs = [(seconds_of(app), seconds_of(guarded)) for _ in range(ROUNDS)]
    added = statistics.median(ours - bare for bare, ours in pairs)
    ratio = statistics.median(ours / bare for bare, ours in pairs)
    yield Row("ASGI: a calm request more", f"{added * 1e6:.2f} us", "2 us", f"{ratio:.2f} x an app that only answers")


def ranks() -> Iterator[Row]:
    """What does an agreed verdict cost four ranks of gloo whose step takes 10 ms?"""
    from tests.support.forked_ranks import results_of

    with new_name() as name, published(name), tempfile.TemporaryDirectory() as folder:
        found = results_of("bench.verdict_ranks", "verdicts", RANKS, Path(folder), name, str(EVERY), str(STEP_SECONDS))
    wall, cpu, ratio = (statistics.median(column) for column in zip(*found, strict=True))
    yield Row(
        f"`AgreedVerdict`: {RANKS} ranks over gloo, `every={EVERY}`, of a step of 10 ms",
        f"{100 * wall / STEP_SECONDS:.1f} % ({100 * cpu / STEP_SECONDS:.1f} % as CPU of the thread that asks)",
        "5 %",
        f"{ratio:.3f} x the step without it",
    )


def dask() -> Iterator[Row]:
    """How soon are two workers back when injected pressure is over, and were they ever both paused?"""
    import distributed

    from shm_monitor.integrations.dask import PressurePlugin

    options: dict[str, Any] = {"processes": False, "dashboard_address": None, "memory_limit": "4GiB"}
    settings = {"check_interval": 0.05, "observation_period": 0.5, "allow_injection": True}
    back, both = [], 0
    with (
        sampler(**settings) as manager,
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, protocol="inproc://", **options) as cluster,
        distributed.Client(cluster) as client,
        sm.attach(manager.name, watch=["memory"]) as reader,
    ):
        client.register_plugin(PressurePlugin(sampler=manager.name))

        def paused() -> int:
            return sum(worker.status is distributed.Status.paused for worker in cluster.workers.values())

        for _ in range(EPISODES):
            inject(reader, {"memory_percent": 99.0}, 1.0)
            both += _highest(paused, until=lambda: paused() > 0) > 1
            both += _highest(paused, until=lambda: not reader.should_prune()) > 1
            calm = time.perf_counter()
            both += _highest(paused, until=lambda: paused() == 0) > 1
            back.append(time.perf_counter() - calm)
    yield Row(
        f"Dask: both workers back after calm, {EPISODES} injected episodes (both paused at once: {both})",
        f"{max(back):.2f} s",
        "1 s",
        f"{max(back) / 0.1:.1f} x the interval of the worker's memory monitor",
    )


def _highest(count: Callable[[], int], *, until: Callable[[], bool]) -> int:
    highest, deadline = 0, time.monotonic() + LONGEST_SECONDS
    while not until():
        highest = max(highest, count())
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {LONGEST_SECONDS:g} s")
        time.sleep(LOOK_SECONDS)
    return highest


NEEDS: tuple[tuple[str, Callable[[], Iterator[Row]]], ...] = (("", asgi), ("torch", ranks), ("distributed", dask))


def main(arguments: list[str]) -> int:
    """Write the table into the page that *arguments* name; return the exit status."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    logging.disable(logging.WARNING)
    page = Path(arguments[0])
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    table, _, after = rest.partition(END)
    lines = dict.fromkeys(line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| |"))
    kept = {_key(line): line for line in lines}
    for package, measure in NEEDS:
        if not package or importlib.util.find_spec(package):
            kept |= {_key(line): line for line in map(str, measure())}
    written = "".join(f"{kept[key]}\n" for key in sorted(kept))
    page.write_text(f"{before}{BEGIN}\n{HEAD}{written}\n{END}{after}", encoding="utf-8")
    print(written, end="", file=sys.stderr)
    return 0


def _key(line: str) -> str:
    """Return the first word of *line*, which is one for each measurement."""
    return line.split()[1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
