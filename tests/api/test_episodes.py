"""`/episodes`: what the log has, while its sampler lives and when it does not."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from shm_monitor.errors import SamplerError
from shm_monitor.segment import side_files
from shm_monitor.snapshot.episode_log import EpisodeRecord, read
from tests.support.api_server import Asked, MortalSampler, asked
from tests.support.pressed import SETTINGS


@pytest.fixture
def sampler(name: str) -> Iterator[MortalSampler]:
    made = MortalSampler(name, **SETTINGS)
    made.feed(*[50.0] * 6, *[98.0] * 2)
    yield made
    made.die()


@pytest.fixture
def ask(sampler: MortalSampler, name: str) -> Asked:
    return asked(name)


def test_the_body_is_what_the_log_says(ask: Asked, name: str) -> None:
    body = ask("/episodes").json()

    assert list(body) == ["episodes"]
    assert msgspec.convert(body["episodes"], list[EpisodeRecord]) == read(name)
    assert {(one["limit"], one["event"]) for one in body["episodes"]} == {("memory", "begin"), ("overall", "begin")}


def test_a_calm_sampler_has_none(name: str) -> None:
    sampler = MortalSampler(name)
    sampler.feed(50.0)
    try:
        assert asked(name)("/episodes").json() == {"episodes": []}
    finally:
        sampler.die()


def test_since_is_the_time_after_which_it_happened(ask: Asked, sampler: MortalSampler, name: str) -> None:
    before = read(name)[-1].time
    sampler.feed(*[50.0] * 20)
    newer = ask(f"/episodes?since={before!r}").json()["episodes"]

    assert newer
    assert all(one["time"] > before for one in newer)
    assert newer[-1]["event"] == "end"


@pytest.mark.parametrize("since", ["-1", "yesterday", "nan", "inf", ""])
def test_a_time_that_is_none_is_a_problem(ask: Asked, since: str) -> None:
    response = ask(f"/episodes?since={since}")

    assert response.status_code == 422
    assert response.json()["errors"][0]["location"] == "query.since"


def test_the_log_is_served_when_its_sampler_has_stopped(sampler: MortalSampler, name: str) -> None:
    """With a tag of its own: what the next sampler adds is sent to who has it."""
    sampler.die()
    ask = asked(name)
    response = ask("/episodes")
    tag = response.headers["etag"]

    assert ask("/snapshot").status_code == 503
    assert (response.status_code, response.headers["shm-monitor-stale"]) == (200, "true")
    assert [one["event"] for one in response.json()["episodes"]][-1] == "lost"
    assert ask("/episodes", headers={"if-none-match": tag}).status_code == 304
    again = MortalSampler(name, **SETTINGS)
    again.feed(98.0)
    again.die()
    newer = asked(name)("/episodes", headers={"if-none-match": tag})
    assert newer.status_code == 200
    assert len(newer.json()["episodes"]) > len(response.json()["episodes"])


def test_a_log_that_cannot_be_opened_is_a_problem_and_no_crash(ask: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no descriptor left there is no event loop either to ask in this process, so the refusal is made up."""

    def refuse(*_: object) -> int:
        raise SamplerError("it cannot be opened: Too many open files; try: ulimit -n 1024")

    assert ask("/snapshot").status_code == 200
    monkeypatch.setattr(side_files, "open_file", refuse)
    response = ask("/episodes")

    assert response.status_code == 503
    assert "ulimit" in response.json()["detail"]
