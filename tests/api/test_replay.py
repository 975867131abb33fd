"""What other settings would have decided, over HTTP: the kernels' own answer, bounded, and from a process that goes."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from shm_monitor.traces.what_if import SETTINGS, Answer, Question
from shm_monitor_api import replaying
from shm_monitor_api.queries import REPLAY
from shm_monitor_api.replaying import Replayer, ReplayerError
from tests.support.api_server import ApiProcess, Asked, MortalSampler, asked, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

MB_100 = 100 * 2**20  # a sampler whose memory has 100 MB
USAGES = [50.0] * 30 + [75.0] * 40 + [50.0] * 30


@pytest.fixture
def sampler(name: str) -> Iterator[MortalSampler]:
    made = MortalSampler(name, gpus=1, max_cpu_usage_percent=80.0)
    made.readings["memory.capacity_bytes"] = MB_100
    made.feed(*[usage * 2**20 for usage in USAGES])
    yield made
    made.die()


@pytest.fixture
def ask(sampler: MortalSampler, name: str) -> Asked:
    return asked(name)


def limit_of(report: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [limit for limit in report["limits"] if limit["name"] == name]
    assert isinstance(found, dict)
    return found


@pytest.mark.processes
def test_the_settings_that_hold_would_decide_what_was_decided(ask: Asked, sampler: MortalSampler) -> None:
    sampler.feed(*[96.0 * 2**20] * 20, *[50.0 * 2**20] * 30)
    body = ask("/replay").json()

    assert body["was"] == body["would"]
    assert len(limit_of(body["was"], "memory")["episodes"]) == 1
    assert body["env"] == []
    assert set(body["settings"]) == set(SETTINGS)


@pytest.mark.processes
def test_a_lower_limit_would_have_pressed_and_is_a_line_to_keep(ask: Asked) -> None:
    body = ask("/replay?max_memory_usage_mb=70&target_utilization=0.8").json()

    assert limit_of(body["was"], "memory")["episodes"] == []
    (episode,) = limit_of(body["would"], "memory")["episodes"]
    assert episode["level"] == "prune"
    assert 30 <= episode["begin_seconds"] < 70
    assert body["settings"]["max_memory_usage_mb"] == 70
    assert body["env"] == ["MAX_MEMORY_USAGE_MB=70", "TARGET_UTILIZATION=0.8"]


@pytest.mark.processes
def test_what_nobody_names_stays_as_the_sampler_has_it(ask: Asked) -> None:
    settings = ask("/replay?observation_period=5").json()["settings"]

    assert settings["observation_period"] == 5
    assert settings["max_cpu_usage_percent"] == 80
    assert settings["max_memory_usage_mb"] is None  # 90 % of the capacity
    assert settings["target_utilization"] == 0.9


@pytest.mark.processes
def test_a_limit_that_was_not_there_can_be_tried(ask: Asked) -> None:
    body = ask("/replay?max_gpu_usage_percent=5").json()

    assert "gpu:0" not in [limit["name"] for limit in body["was"]["limits"]]
    assert limit_of(body["would"], "gpu:0")["episodes"] != []


@pytest.mark.processes
def test_a_sampler_that_ended_takes_its_ring_along(ask: Asked, sampler: MortalSampler, name: str) -> None:
    """Other routes still have the mapping; one that was killed leaves its ring (tests/api/test_browser.py)."""
    sampler.die()

    response = ask("/replay")
    assert response.status_code == 503
    assert f"shm-monitor run --name {name}" in response.json()["detail"]


@pytest.mark.processes
@pytest.mark.parametrize(
    "query",
    ["max_memory_usage_mb=0", "target_utilization=1.5", "observation_period=x", "forecast_horizon=nan",
     "max_cpu_usage_percent=-1", "max_network_usage_bytes_per_second=1e400", "observation_period=0.5"],
)  # fmt: skip
def test_a_value_that_no_configuration_takes_is_a_problem(ask: Asked, query: str) -> None:
    """The last one is shorter than the time between two samples."""
    response = ask(f"/replay?{query}")

    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert [one["location"] for one in response.json()["errors"]] == [f"query.{query.partition('=')[0]}"]


def test_every_setting_that_decides_is_a_parameter() -> None:
    assert tuple(REPLAY) == SETTINGS


def test_without_a_sampler_there_is_nothing_to_replay(name: str) -> None:
    response = asked(name)("/replay?max_memory_usage_mb=70")

    assert response.status_code == 503
    assert response.json()["type"] == "urn:shm-monitor:no-sampler"


def test_more_questions_than_may_wait_are_refused(ask: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "WAITING_MAX", 0)

    response = ask("/replay")
    assert response.status_code == 503
    assert response.json()["type"] == "urn:shm-monitor:too-many-clients"
    assert response.headers["retry-after"] == "1"


# The process


@pytest.mark.processes
def test_the_process_lingers_and_then_ends(sampler: MortalSampler, name: str) -> None:
    replayer = Replayer(linger_seconds=0.2)
    replayer.lingers = True
    question = Question(name, {"max_memory_usage_mb": 70.0})

    assert replayer.ask(question).found is not None
    eventually(lambda: replayer.pid is None)
    assert replayer.ask(question).found is not None
    replayer.close()
    assert replayer.pid is None


@pytest.mark.processes
def test_a_process_that_dies_is_a_problem_and_the_next_one_answers(sampler: MortalSampler, name: str) -> None:
    replayer = Replayer()
    replayer.lingers = True
    replayer.ask(Question(name, {}))
    first = replayer.pid
    assert first is not None
    os.kill(first, 9)

    with pytest.raises(ReplayerError):
        replayer.ask(Question(name, {}))
    assert replayer.ask(Question(name, {})).found is not None
    assert replayer.pid != first
    replayer.close()


@pytest.mark.processes
def test_who_closes_waits_for_no_answer(sampler: MortalSampler, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replayer = Replayer()
    replayer.lingers = True
    replayer.ask(Question(name, {}))
    assert replayer.pid is not None
    os.kill(replayer.pid, 19)  # SIGSTOP: it will not answer
    outcome: list[object] = []

    def ask() -> None:
        try:
            outcome.append(replayer.ask(Question(name, {})))
        except ReplayerError as error:
            outcome.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.1)
    replayer.close()
    thread.join(20)

    assert [type(one) for one in outcome] == [ReplayerError]


@pytest.mark.processes
def test_an_answer_that_takes_too_long_is_given_up(
    sampler: MortalSampler, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "ANSWER_SECONDS", 0.0)

    with pytest.raises(ReplayerError, match="no answer within 0 s"):
        Replayer().ask(Question(name, {}))


@pytest.mark.processes
def test_the_api_itself_stays_without_numpy(sampler: MortalSampler, name: str) -> None:
    with ApiProcess("--name", name, "--bind", "127.0.0.1:0") as server:
        answer = httpx.get(f"{server.url}/replay?max_memory_usage_mb=70", timeout=60)
        with open(f"/proc/{server.process.pid}/maps", encoding="utf-8") as file:
            maps = file.read()
        (child,) = children_of(server.process.pid)
        assert server.stop() == 0

    assert answer.status_code == 200
    assert "numpy" not in maps
    assert not os.path.exists(f"/proc/{child}")


def children_of(pid: int) -> list[int]:
    """Return the processes that any thread of *pid* started."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text(encoding="ascii").split()]


def test_what_the_process_reads_that_is_no_question_is_refused() -> None:
    from shm_monitor.traces.__main__ import answer

    assert answer(Question("no-such-sampler-of-dash", {})) != Answer()
