"""What each path answers: the exact bodies, the formats, the caching, and a problem for everything else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest

import shm_monitor as sm
from shm_monitor.collectors.network import interface_metrics
from shm_monitor.segment import presence
from shm_monitor.testing import FakeReadings
from tests.support.api_server import PATHS, Asked, MortalSampler, asked
from tests.support.herd import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.publishing import Bench

ALL = [
    "cpu_percent",
    "memory_usage_mb",
    "gpu_percent",
    "gpu_memory_percent",
    "network_usage_bytes_per_second",
    "timestamp",
]
PROBLEM = "application/problem+json"


@pytest.fixture
def sampler(name: str) -> Iterator[MortalSampler]:
    made = MortalSampler(name, gpus=2, max_gpu_usage_percent=90.0)
    made.feed(*[50.0] * 5)
    yield made
    made.die()


@pytest.fixture
def ask(sampler: MortalSampler, name: str) -> Asked:
    return asked(name)


@pytest.fixture
def ask_nobody(name: str) -> Asked:
    """An application whose sampler does not run."""
    return asked(name)


def problem_of(response: httpx.Response) -> dict[str, Any]:
    """Return the body, which must be a problem that says its own status."""
    assert response.headers["content-type"] == PROBLEM
    found: dict[str, Any] = response.json()
    assert found["status"] == response.status_code
    assert found["title"]
    assert found["detail"]
    return found


@pytest.mark.processes
@pytest.mark.skipif(not presence.HAS_PRESENCE, reason="workers present themselves on Linux alone")
def test_workers_are_those_that_presented_themselves_with_what_they_are_asked(
    sampler: MortalSampler, ask: Asked, name: str
) -> None:
    assert ask("/workers").json()["workers"] == []
    worker = Worker(name, 16)
    try:
        sampler.feed(*[95.0] * 8)
        (shown,) = ask("/workers").json()["workers"]
    finally:
        worker.kill()

    assert (shown["slot"], shown["pid"], shown["limit"]) == (0, worker.pid, "memory")
    assert shown["name"] == "-m tests.support.present_worker"
    assert 10 * 2**20 < shown["held_bytes"] < 40 * 2**20
    assert shown["request_bytes"] > 0
    assert shown["round_number"] >= 1


def test_all_resources_are_exactly_six_fields(ask: Asked) -> None:
    body = ask("/resources/all").json()

    assert list(body) == ALL
    assert body["memory_usage_mb"] == 50 / 2**20
    assert body["cpu_percent"] == 5.0
    assert body["gpu_percent"] == 10.0
    assert body["network_usage_bytes_per_second"] is None


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/resources/cpu", ["cpu_percent", "timestamp"]),
        ("/resources/memory", ["memory_usage_mb", "timestamp"]),
        ("/resources/gpu", ["gpu_percent", "gpu_memory_percent", "timestamp"]),
        ("/resources/network", ["network_usage_bytes_per_second", "timestamp"]),
    ],
)
def test_one_resource_has_the_same_names_as_all(ask: Asked, path: str, fields: list[str]) -> None:
    one, every = ask(path).json(), ask("/resources/all").json()

    assert list(one) == fields
    assert one == {field: every[field] for field in fields}


def test_the_gpu_body_is_the_mean_over_the_devices_that_are_known(ask: Asked, sampler: MortalSampler) -> None:
    sampler.readings["gpu:0.utilization_percent"] = 90.0
    sampler.readings["gpu:1.memory_percent"] = float("nan")
    sampler.feed(50.0)
    body = ask("/resources/gpu").json()

    assert body["gpu_percent"] == 50.0
    assert body["gpu_memory_percent"] == 10.0


def test_without_a_gpu_its_fields_are_null(name: str, ask_nobody: Asked) -> None:
    sampler = MortalSampler(name)
    try:
        sampler.feed(50.0)
        body = asked(name)("/resources/gpu").json()
    finally:
        sampler.die()

    assert (body["gpu_percent"], body["gpu_memory_percent"]) == (None, None)


def test_prune_says_why(ask: Asked, sampler: MortalSampler) -> None:
    calm = ask("/resources/prune").json()
    sampler.feed(98.0)
    pressed = ask("/resources/prune").json()

    assert (calm["should_prune"], calm["level"], calm["reasons"]) == (False, "ok", [])
    assert (pressed["should_prune"], pressed["level"]) == (True, "critical")
    reason = pressed["reasons"][0]
    assert (reason["limit"], reason["reason"], reason["value"], reason["capacity"]) == ("memory", "capacity", 98, 100)
    assert {"limit_value", "since", "seconds_to_limit"} <= set(reason)
    assert pressed["timestamp"] > calm["timestamp"]


def test_a_snapshot_is_everything_of_one_sample(ask: Asked, name: str) -> None:
    body = ask("/snapshot").json()

    assert body["name"] == name
    assert {"sequence", "sampled_at", "age_seconds", "interval_seconds", "stale", "epoch"} <= set(body)
    assert body["memory"]["usage_bytes"] == 50
    assert [gpu["instance"] for gpu in body["gpus"]] == ["0", "1"]
    assert list(body) == list(sm.Snapshot.__struct_fields__)


def test_history_has_one_array_of_times_and_one_per_metric(ask: Asked, sampler: MortalSampler) -> None:
    sampler.feed(60.0, 70.0)
    body = ask("/history?metrics=memory.usage_bytes,cpu.cpu_percent&seconds=1.5").json()

    assert body["sequences"] == [6, 7]
    assert body["columns"] == {"memory.usage_bytes": [60.0, 70.0], "cpu.cpu_percent": [5.0, 5.0]}
    assert body["times"][1] - body["times"][0] == pytest.approx(1.0, abs=0.01)


def test_a_history_is_made_beside_the_event_loop_and_once_for_a_sample(
    sampler: MortalSampler, ask: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made on the loop, 64 at once held up ``/healthz`` for 3.2 s."""
    made: list[bool] = []
    real = sm.Reader.history

    def history(reader: sm.Reader, **wanted: Any) -> sm.History:
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            made.append(False)
            return real(reader, **wanted)
        made.append(True)
        return real(reader, **wanted)

    monkeypatch.setattr(sm.Reader, "history", history)
    first, again = ask("/history?step=2"), ask("/history?step=2")
    ask("/history?step=3")
    assert made == [True, True]
    assert again.content == first.content

    sampler.feed(51.0)
    time.sleep(0.01)
    assert ask("/history?step=2").json()["sequences"][-1] == 6
    assert made == [True, True, True]


def test_history_takes_a_step_and_a_sequence_to_start_after(ask: Asked) -> None:
    assert ask("/history?step=2").json()["sequences"] == [1, 3, 5]
    assert ask("/history?since=3").json()["sequences"] == [4, 5]
    assert ask("/history?since=9999").json()["sequences"] == []


def test_an_unknown_metric_is_not_found(ask: Asked) -> None:
    response = ask("/history?metrics=memory.usage_byte")

    assert response.status_code == 404
    assert problem_of(response)["type"] == "urn:shm-monitor:unknown-metric"


@pytest.mark.parametrize("query", ["since=-1", "since=x", "seconds=0", "seconds=nan", "seconds=inf", "step=0"])
def test_a_parameter_that_cannot_be_obeyed_is_a_problem_with_its_name(ask: Asked, query: str) -> None:
    response = ask(f"/history?{query}")

    assert response.status_code == 422
    assert problem_of(response)["errors"][0]["location"] == f"query.{query.partition('=')[0]}"


def test_more_history_than_one_answer_may_hold_is_refused(sampler: MortalSampler, name: str) -> None:
    ask = asked(name, history_values_max=20)
    response = ask("/history")

    assert response.status_code == 403
    assert "allowed are 20" in problem_of(response)["detail"]
    for less in ("step=2", "since=3", "seconds=0.5", "metrics=cpu.cpu_percent"):
        assert ask(f"/history?{less}").status_code == 200


def test_a_history_of_samples_closer_than_the_interval_is_counted_as_it_is(bench: Bench, name: str) -> None:
    """While memory rises it is looked at between two turns, too: eight samples in a second, of one metric."""
    now_ns = time.monotonic_ns()
    for sample in range(8):
        bench.publish(mono_ns=now_ns - (7 - sample) * 10**8)

    assert asked(name, history_values_max=7)("/history?seconds=2").status_code == 403
    assert asked(name, history_values_max=7)("/history?seconds=0.45").status_code == 200
    assert len(asked(name, history_values_max=8)("/history?seconds=2").json()["times"]) == 8


def test_the_schema_lists_metrics_and_limits(ask: Asked) -> None:
    body = ask("/schema").json()

    usage = next(row for row in body["metrics"] if row["name"] == "memory.usage_bytes")
    assert (usage["unit"], usage["help"], usage["source"], usage["rolled"]) == ("bytes", "a number", "a test", True)
    assert "memory" in [row["name"] for row in body["limits"]]


@pytest.mark.processes
@pytest.mark.parametrize("path", PATHS)
def test_both_formats_have_the_same_content(ask: Asked, path: str) -> None:
    as_json = ask(path, headers={"accept": "application/json"})
    as_msgpack = ask(path, headers={"accept": "application/msgpack"})

    assert as_json.headers["content-type"] == "application/json"
    assert as_msgpack.headers["content-type"] == "application/msgpack"
    assert as_msgpack.headers["vary"] == "Accept"
    assert _ageless(msgspec.msgpack.decode(as_msgpack.content)) == _ageless(as_json.json())


def _ageless(body: dict[str, Any]) -> dict[str, Any]:
    """Return *body* without the ages, which pass while a test asks twice."""
    text = json.dumps({key: value for key, value in body.items() if key != "age_seconds"})
    kept: dict[str, Any] = json.loads(text, object_hook=lambda one: {k: v for k, v in one.items() if "age" not in k})
    return kept


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("text/html, application/json;q=0.2, application/msgpack;q=0.1", "application/json"),
        ("application/x-msgpack", "application/msgpack"),
        ("application/msgpack, */*;q=0.5", "application/msgpack"),
        ("application/msgpack, */*", "application/msgpack"),
        ("application/json;q=0, */*", "application/msgpack"),
        ("APPLICATION/MSGPACK ; Q=1.0", "application/msgpack"),
    ],
)
def test_accept_chooses_the_format(ask: Asked, accept: str, media: str) -> None:
    assert ask("/resources/all", headers={"accept": accept}).headers["content-type"] == media


@pytest.mark.processes
@pytest.mark.parametrize("accept", ["text/html", "image/*", "application/json;q=0", "application/json;q=x", "nonsense"])
@pytest.mark.parametrize("path", PATHS)
def test_no_other_format_is_acceptable(ask: Asked, path: str, accept: str) -> None:
    response = ask(path, headers={"accept": accept})

    assert response.status_code == 406
    assert "application/msgpack" in problem_of(response)["detail"]


@pytest.mark.processes
@pytest.mark.parametrize("path", PATHS)
def test_the_same_sample_is_sent_once(ask: Asked, sampler: MortalSampler, path: str) -> None:
    first = ask(path)
    tag = first.headers["etag"]
    again = ask(path, headers={"if-none-match": tag})
    sampler.feed(55.0)
    newer = ask(path, headers={"if-none-match": f'W/"0-0", {tag}'})

    assert (first.status_code, again.status_code, newer.status_code) == (200, 304, 200)
    assert again.content == b""
    assert again.headers["etag"] == tag
    assert newer.headers["etag"] != tag
    assert first.headers["cache-control"] == "private, no-cache"


def test_the_tag_is_epoch_and_sequence(ask: Asked) -> None:
    response = ask("/snapshot")

    assert response.headers["etag"] == f'W/"{response.json()["epoch"]}-{response.json()["sequence"]}"'
    assert ask("/snapshot", headers={"if-none-match": "*"}).status_code == 304


def test_a_client_that_polls_with_a_tag_learns_that_the_sampler_died(ask: Asked, sampler: MortalSampler) -> None:
    tag = ask("/snapshot").headers["etag"]
    sampler.die()
    response = ask("/snapshot", headers={"if-none-match": tag})

    assert response.status_code == 200
    assert response.json()["stale"] is True
    assert response.headers["shm-monitor-stale"] == "true"


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/replay"])
def test_a_stale_sample_is_still_served(ask: Asked, sampler: MortalSampler, path: str) -> None:
    sampler.die()
    response = ask(path)

    assert response.status_code == 200
    assert response.headers["shm-monitor-stale"] == "true"


@pytest.mark.parametrize("path", [*PATHS, "/metrics"])
def test_without_a_sampler_the_problem_says_how_to_start_one(ask_nobody: Asked, name: str, path: str) -> None:
    response = ask_nobody(path)

    assert response.status_code == 503
    assert problem_of(response)["detail"].endswith(f"try: shm-monitor run --name {name}")
    assert response.headers["retry-after"] == "1"
    assert response.headers["cache-control"] == "no-store"


def test_ready_follows_the_sampler_and_health_does_not(ask: Asked, sampler: MortalSampler, name: str) -> None:
    assert ask("/readyz").json()["status"] == "ready"
    sampler.die()
    response = ask("/readyz")

    assert response.status_code == 503
    assert problem_of(response)["detail"].endswith(f"try: shm-monitor status --name {name}")
    assert response.headers["retry-after"] == "1"
    assert ask("/healthz").json() == {"status": "alive"}


@pytest.mark.parametrize("path", ["/nope", "/resources", "/resources/all/", "/resources/disk", "/docs/nope.js"])
def test_another_path_is_a_problem_too(ask: Asked, path: str) -> None:
    response = ask(path)

    assert response.status_code == 404
    assert problem_of(response)["instance"] == path


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/snapshot", "/healthz", "/metrics", "/", "/openapi.json"])
def test_no_verb_writes(ask: Asked, method: str, path: str) -> None:
    response = ask(path, method)

    assert response.status_code == 405
    assert "only reads" in problem_of(response)["detail"]
    assert response.headers["allow"] == "GET, HEAD"


def test_head_is_get_without_the_body(ask: Asked) -> None:
    assert ask("/snapshot", "HEAD").headers["etag"] == ask("/snapshot").headers["etag"]


def test_a_stream_has_no_head(ask: Asked) -> None:
    response = ask("/events", "HEAD")

    assert (response.status_code, response.headers["allow"]) == (405, "GET")


def test_samples_read_shortly_after_each_other_are_read_once(ask: Asked) -> None:
    first = ask("/snapshot").json()
    again = ask("/snapshot").json()

    assert first["sequence"] == again["sequence"]


@pytest.mark.parametrize("seconds", ["1e308", "1e300", "1.7976931348623157e308", "1e-320", "5e-324"])
def test_more_seconds_than_can_be_counted_are_all_there_are(ask: Asked, seconds: str) -> None:
    """1e308 s of samples at 20 Hz are infinitely many, which no integer is."""
    assert ask(f"/history?seconds={seconds}").status_code == 200


class NamedInBytes(FakeReadings):
    """Readings of an interface whose name is not UTF-8: the kernel takes any bytes but / and blanks."""

    def __init__(self, capacity_bytes: float, gpus: int) -> None:
        super().__init__(capacity_bytes, gpus)
        rows = interface_metrics(os.fsdecode(b"w\xff0"))
        self.values |= {row.name: 1.0 for row in rows}
        self.metrics = (*self.metrics, *rows)


@pytest.mark.processes
def test_an_interface_that_is_named_in_other_bytes_than_utf8_is_shown_by_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shm_monitor.testing.FakeReadings", NamedInBytes)
    sampler = MortalSampler(name)
    sampler.feed(50.0)
    ask = asked(name)
    try:
        assert list(ask("/snapshot").json()["network"]["interfaces"]) == ["w\\xff0"]
        assert 'device="w\\\\xff0"' in ask("/metrics").text
        for path in (*PATHS, "/metrics"):
            for accept in ("application/json", "application/msgpack"):
                assert ask(path, headers={"accept": accept}).status_code == 200
    finally:
        sampler.die()
