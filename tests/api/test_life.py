"""The API outlives its sampler: whatever that does there is an answer, and never an exception in the log."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

import shm_monitor as sm
from shm_monitor.segment import names
from shm_monitor_api import create_app
from tests.support.api_server import (
    PATHS,
    ApiProcess,
    MortalSampler,
    asked,
    connected,
    eventually,
    exchanged,
    received,
    state_of,
)
from tests.support.light_sampler import LightSamplers, end
from tests.support.surroundings import UNMEASURED, child_environment, remove_files

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.processes

PRIVATE_BYTES_MAX = 40 * 2**20
EVENTS = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def server(name: str) -> Iterator[ApiProcess]:
    with ApiProcess("--name", name, "--bind", "127.0.0.1:0") as started:
        yield started
        for path in PATHS:
            assert httpx.get(f"{started.url}{path}").status_code in {200, 503}
        assert started.process.poll() is None
        assert "Traceback" not in started.log
        assert "Error" not in started.log


def is_ready(server: ApiProcess) -> bool:
    """Say whether the API sees a live sampler."""
    response = state_of(server.url)
    return response is not None and response.status_code == 200


def test_a_sampler_that_appears_later_is_found(server: ApiProcess, light: LightSamplers, name: str) -> None:
    assert httpx.get(f"{server.url}/snapshot").status_code == 503
    assert httpx.get(f"{server.url}/healthz").status_code == 200
    started = light.one(name, interval_seconds=0.05)

    eventually(lambda: is_ready(server))
    assert httpx.get(f"{server.url}/snapshot").json()["stale"] is False
    end(started.pid)


def test_a_killed_sampler_leaves_its_last_sample(server: ApiProcess, light: LightSamplers, name: str) -> None:
    started = light.one(name, interval_seconds=0.05, stale_after_seconds=0.5)
    eventually(lambda: is_ready(server))
    end(started.pid)

    eventually(lambda: not is_ready(server))
    snapshot = httpx.get(f"{server.url}/snapshot")
    assert (snapshot.status_code, snapshot.json()["stale"]) == (200, True)
    assert httpx.get(f"{server.url}/resources/all").headers["shm-monitor-stale"] == "true"


@pytest.mark.slow
def test_a_restarted_sampler_is_seen_again(server: ApiProcess, light: LightSamplers, name: str) -> None:
    epochs = set()
    for _ in range(3):
        started = light.one(name, interval_seconds=0.05, stale_after_seconds=0.5)
        eventually(lambda: is_ready(server))
        epochs.add(httpx.get(f"{server.url}/snapshot").json()["epoch"])
        end(started.pid)
        eventually(lambda: not is_ready(server))

    assert len(epochs) == 3


def test_a_sampler_with_another_layout_is_read_by_its_own(server: ApiProcess, light: LightSamplers, name: str) -> None:
    counts = []
    for metric_count in (4, 40, 7):
        started = light.one(name, interval_seconds=0.05, metric_count=metric_count, stale_after_seconds=0.5)
        eventually(lambda: is_ready(server))
        counts.append(len(httpx.get(f"{server.url}/schema").json()["metrics"]))
        end(started.pid)
        eventually(lambda: not is_ready(server))

    assert counts == [4, 40, 7]


def test_a_listener_follows_through_death_and_another_layout(
    server: ApiProcess, light: LightSamplers, name: str
) -> None:
    with connected(server.port, timeout=30) as client:
        client.sendall(EVENTS)
        assert b'"state":"absent"' in received(client, until=b"event: stale")
        started = light.one(name, interval_seconds=0.05, stale_after_seconds=0.5)
        received(client, until=b"event: snapshot")
        end(started.pid)
        assert b'"stale":true' in received(client, until=b'"state":"stale"')
        again = light.one(name, interval_seconds=0.05, metric_count=20)
        assert b"event: snapshot" in received(client, until=b"event: snapshot")
        end(again.pid)


def test_a_damaged_segment_is_a_problem_and_no_crash(server: ApiProcess, name: str) -> None:
    with open(names.object_path(name), "wb") as file:
        file.write(b"not a segment" * 1000)

    eventually(lambda: httpx.get(f"{server.url}/readyz").json()["detail"])
    response = httpx.get(f"{server.url}/snapshot")
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.slow
def test_requests_while_samplers_come_and_go_are_all_answered(
    server: ApiProcess, light: LightSamplers, name: str
) -> None:
    seen = set()
    with httpx.Client(base_url=server.url) as client:
        for turn in range(12):
            started = light.one(name, interval_seconds=0.002, metric_count=4 + turn % 2 * 30, stale_after_seconds=0.2)
            seen |= {client.get(path).status_code for path in (*PATHS, "/metrics") for _ in range(3)}
            end(started.pid)
            seen |= {client.get(path).status_code for path in (*PATHS, "/metrics")}

    assert seen <= {200, 503}


def test_importing_it_needs_no_sampler_and_reads_no_environment() -> None:
    code = "import shm_monitor_api, sys; print('fastapi' in sys.modules); print(type(shm_monitor_api.app).__mro__[1])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=child_environment(SHM_MONITOR_NAME=f"nobody-{uuid.uuid4().hex[:8]}"),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split("\n")[:2] == ["False", "<class 'fastapi.applications.FastAPI'>"]
    assert done.stderr == ""


def test_telemetry_is_off() -> None:
    telemetry = getattr(create_app(), "_native_telemetry", None)  # older versions have none

    assert telemetry is None or not telemetry.enabled()


def test_a_server_that_answers_is_small(light: LightSamplers, name: str) -> None:
    started = light.one(name, interval_seconds=0.05)
    with ApiProcess("--name", name, "--bind", "127.0.0.1:0", environ=UNMEASURED) as server:
        eventually(lambda: is_ready(server))
        for path in ("/resources/all", "/snapshot", "/history", "/", "/dashboard.js", "/metrics", "/openapi.json"):
            assert httpx.get(f"{server.url}{path}", timeout=30).status_code == 200
        memory = psutil.Process(server.process.pid).memory_maps()

    assert sum(one.private_clean + one.private_dirty for one in memory) < PRIVATE_BYTES_MAX
    end(started.pid)


@pytest.mark.slow
def test_a_real_sampler_is_served() -> None:
    name = f"test-{uuid.uuid4().hex[:12]}"
    try:
        with (
            sm.ResourceManager(sm.ResourceConfig(name=name, check_interval=0.2)),
            ApiProcess("--name", name, "--bind", "127.0.0.1:0") as server,
        ):
            eventually(lambda: httpx.get(f"{server.url}/resources/all").json()["cpu_percent"] is not None)
            body = httpx.get(f"{server.url}/resources/all").json()
            schema = httpx.get(f"{server.url}/schema").json()
            every = ",".join(row["name"] for row in schema["metrics"])
            history = httpx.get(f"{server.url}/history", params={"metrics": every}).json()
            answer = exchanged(server.port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    finally:
        remove_files(name)

    assert body["memory_usage_mb"] > 1
    assert set(history["columns"]) == {row["name"] for row in schema["metrics"]}
    assert b"shm_monitor_cpu_utilization_ratio" in answer


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))])
def test_bytes_that_no_sampler_writes_are_a_problem_at_worst(name: str, seed: int) -> None:
    """Whatever stands in the segment: an answer or a 503, never a 500."""
    random_byte = random.Random(seed)
    sampler = MortalSampler(name, gpus=2, max_gpu_usage_percent=90.0)
    sampler.feed(*[50.0] * 5, 98.0)
    ask = asked(name)
    try:
        path = names.object_path(name)
        good = Path(path).read_bytes()
        for _ in range(12):
            with open(path, "r+b") as file:
                for _ in range(random_byte.choice((1, 8, 200))):
                    file.seek(random_byte.randrange(len(good)))
                    file.write(bytes([random_byte.randrange(256)]))
            found = {each: ask(each) for each in (*PATHS, "/metrics", "/readyz")}
            assert {each: one.text for each, one in found.items() if one.status_code not in {200, 503}} == {}
            with open(path, "r+b") as file:
                file.write(good)
            ask = asked(name)
    finally:
        with contextlib.suppress(Exception):
            sampler.die()


@pytest.mark.slow
def test_more_connections_than_files_do_not_end_the_server(name: str) -> None:
    with ApiProcess("--name", name, "--bind", "127.0.0.1:0") as server:
        psutil.Process(server.process.pid).rlimit(psutil.RLIMIT_NOFILE, (400, 400))
        with contextlib.ExitStack() as stack:
            for _ in range(600):
                client = stack.enter_context(socket.socket())
                client.settimeout(0.0)  # the kernel keeps those that are not accepted, and turns away the rest
                client.connect_ex(("127.0.0.1", server.port))
            time.sleep(2.0)
            assert server.process.poll() is None
        eventually(lambda: state_of(server.url) is not None)
