"""Many hosts: a real Prometheus finds, scrapes and judges twenty APIs; what docs/fleet.md says of sizes holds."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import httpx
import pytest
import yaml

pytest.importorskip("shm_monitor_api", reason="the extra api is not installed")

from prometheus_client import generate_latest

import shm_monitor as sm
from shm_monitor.cli import main
from shm_monitor.schema import Limit
from shm_monitor.snapshot.decoder import Decoder
from shm_monitor_api.exposition import SampleCollector, families
from tests.support.api_server import ApiProcess
from tests.support.prometheus_server import PROGRAM, Prometheus
from tests.support.real_sampler import RealSampler, fast
from tests.support.samples import FACTS, GPU, GPU_FACTS, MONO_NS, USUAL, sample_of, schema_of
from tests.support.surroundings import ROOT, remove_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.processes

APIS = 20
COLLECTORS = ("cpu", "memory", "stall", "network", "disk", "workers", "gpu")
PAGE = ROOT / "docs" / "fleet.md"


class Fleet:
    """Twenty APIs over two samplers: the first API's is one of its own, which takes false readings.

    Attributes:
        apis: the processes; the first is the one that a test puts under pressure.
        pressed: the name of its sampler.
    """

    def __init__(self, stack: contextlib.ExitStack, name: str) -> None:
        self.pressed = f"{name}-pressed"
        for one in (self.pressed, name):
            stack.callback(remove_files, one)
            stack.enter_context(RealSampler(fast(one, allow_injection=True))).report()
        self.apis = [
            stack.enter_context(ApiProcess("--name", self.pressed if at == 0 else name, "--bind", "127.0.0.1:0"))
            for at in range(APIS)
        ]
        self.targets = [f"127.0.0.1:{api.port}" for api in self.apis]


@pytest.fixture
def fleet(name: str) -> Iterator[Fleet]:
    """What Prometheus scrapes."""
    with contextlib.ExitStack() as stack:
        yield Fleet(stack, name)


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(PROGRAM is None, reason="prometheus is not installed (Debian: prometheus)")
def test_prometheus_finds_twenty_apis_and_its_alerts_fire_and_resolve(fleet: Fleet, tmp_path: Path) -> None:
    """By file: 19 at first, then 20. One is put under pressure and calmed; then one API ends."""
    first, last = fleet.targets[0], fleet.targets[-1]
    with Prometheus(tmp_path) as prometheus:
        prometheus.discover(fleet.targets[:-1])
        prometheus.until(lambda: sum(prometheus.ask("up").values()) == APIS - 1)
        prometheus.discover(fleet.targets)
        prometheus.until(lambda: sum(prometheus.ask("up").values()) == APIS)
        prometheus.until(lambda: len(prometheus.ask("instance:shm_monitor_memory_used:ratio")) == APIS)
        assert not pressure(prometheus)

        assert main(["inject", "memory_percent=99", "--seconds", "240", "--name", fleet.pressed]) == 0
        prometheus.until(lambda: ("ShmMonitorUnderPressure", first) in prometheus.alerts())
        prometheus.until(lambda: ("ShmMonitorCritical", first) in prometheus.alerts())
        assert {instance for _, instance in pressure(prometheus)} == {first}
        assert prometheus.ask("job:shm_monitor_pressed_instances:count") == {"": 1.0}
        assert main(["inject", "--end", "--name", fleet.pressed]) == 0
        prometheus.until(lambda: not pressure(prometheus))
        prometheus.until(lambda: prometheus.ask("job:shm_monitor_pressed_instances:count") == {"": 0.0})

        kept = httpx.get(f"{prometheus.url}/federate", params=federation(), timeout=30).text
        assert {f'instance="{target}"' in kept for target in fleet.targets} == {True}
        assert "shm_monitor_sampler_live" not in kept

        fleet.apis[-1].stop()
        prometheus.until(lambda: ("ShmMonitorDown", last) in prometheus.alerts())
        print(sizes(prometheus))


def federation() -> dict[str, list[str]]:
    """Return the parameters that the page tells a Prometheus above to ask with."""
    text = next(block for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL) if "federate" in block)
    params: dict[str, list[str]] = yaml.safe_load(text)["scrape_configs"][0]["params"]
    return params


def pressure(prometheus: Prometheus) -> set[tuple[str, str]]:
    """Return the alerts of pressure that fire."""
    return {one for one in prometheus.alerts() if one[0] in {"ShmMonitorUnderPressure", "ShmMonitorCritical"}}


def sizes(prometheus: Prometheus) -> dict[str, float]:
    """Return what one scrape brings and takes, the median of the APIs; shown by ``pytest -s``."""
    series = ("scrape_samples_scraped", "scrape_duration_seconds")
    return {name: sorted(prometheus.ask(name).values())[APIS // 2] for name in series}


def snapshot_of(gpus: int, disks: int, interfaces: int, *, levels: int = 2) -> sm.Snapshot:
    """Return a sample of a node of that size, with a limit at each of the *levels* of memory."""
    more = {
        "gpu": " ".join(word.replace("0/", f"{at}/", 1) for at in range(1, gpus) for word in GPU["gpu"].split()),
        "disk": " ".join(f"d{at}/{way}_bytes_count#" for at in range(1, disks) for way in ("read", "write")),
        "network": " ".join(
            f"eth{at}/{way}_bytes_count#" for at in range(1, interfaces) for way in ("receive", "transmit")
        ),
    }
    devices = [{**GPU_FACTS, "instance": str(at), "index": at, "uuid": f"GPU-{at}"} for at in range(gpus)]
    limits = [Limit(f"memory:{at}", "memory.usage_bytes", "bytes") for at in range(levels)]
    facts = {**FACTS, "gpu": {"devices": devices, "unavailable": ""}}
    schema = schema_of(USUAL, GPU, more, limits=limits, facts=facts)._replace(collectors=COLLECTORS)
    values = {f"gpu:{at}.throttle_reasons": 0.0 for at in range(gpus)}
    return Decoder(schema).snapshot(
        sample_of(schema, {"memory.scope": 1.0, **values}),
        name="job",
        now_ns=MONO_NS,
        interval_ns=10**9,
        stale=False,
        collectors=[MONO_NS, 0] * len(COLLECTORS),
        injected=(),
    )


def series_of(snapshot: sm.Snapshot) -> int:
    """Return how many series one scrape brings."""
    return sum(len(family.samples) for family in families(snapshot))


def test_the_series_of_a_node_are_as_many_as_the_page_says() -> None:
    """And grow by GPU, disk and interface alone, each by the number on the page."""
    told = {
        what: int(count)
        for count, what in re.findall(r"(\d+) per (GPU|disk|interface|further limit)\b", PAGE.read_text())
    }
    base = series_of(snapshot_of(1, 1, 1))
    least = re.search(r"(\d+) with memory of two levels", PAGE.read_text())

    assert least is not None
    assert base - told["GPU"] - told["disk"] - told["interface"] == int(least[1])
    assert series_of(snapshot_of(1, 1, 1, levels=3)) - base == told["further limit"]

    assert series_of(snapshot_of(2, 1, 1)) - base == told["GPU"]
    assert series_of(snapshot_of(1, 2, 1)) - base == told["disk"]
    assert series_of(snapshot_of(1, 1, 2)) - base == told["interface"]
    whole = re.search(r"8\s+GPUs, 4 disks and 4 interfaces has (\d+)", PAGE.read_text())
    assert whole is not None
    assert series_of(snapshot_of(8, 4, 4)) == int(whole[1])


@pytest.mark.parametrize("page", ["fleet.md", "http.md"])
def test_prometheus_takes_the_configuration_that_a_page_shows(page: str, tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    assert blocks
    for at, block in enumerate(blocks):
        file = tmp_path / f"{at}.yml"
        file.write_text(block)
        command = [promtool, "check", "config", "--syntax-only", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, block + done.stderr


def test_the_bytes_of_a_scrape_are_no_more_than_the_page_says() -> None:
    told = re.search(r"a scrape of it is (\d+) KB", PAGE.read_text())
    assert told is not None

    assert len(generate_latest(SampleCollector(snapshot_of(8, 4, 4)))) <= int(told[1]) * 1024
