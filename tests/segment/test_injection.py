"""False readings on purpose: only when allowed, marked in each sample, over in time."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

import shm_monitor as sm
from shm_monitor.cli import main
from shm_monitor.segment import injection, names
from tests.support.fake_sampler import FakeSampler

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sampler(name: str) -> Iterator[FakeSampler]:
    made = FakeSampler(name, allow_injection=True)
    made.feed(50.0)
    yield made
    made.close()


def test_an_injected_reading_presses_and_marks_the_sample(sampler: FakeSampler, name: str) -> None:
    assert main(["inject", "memory_bytes=98", "--seconds", "60", "--name", name]) == 0
    sampler.feed(50.0)
    with sm.attach(name) as reader:
        snapshot = reader.snapshot()

        assert reader.should_prune()
        assert snapshot.memory.usage_bytes == 98
        assert snapshot.injected == ("memory.usage_bytes",)


def test_what_is_injected_ends_by_itself(sampler: FakeSampler, name: str) -> None:
    injection.write(name, {"memory.usage_bytes": 98.0}, 0.05)
    time.sleep(0.1)
    sampler.feed(50.0)
    with sm.attach(name) as reader:
        assert reader.snapshot().injected == ()
        assert not reader.should_prune()


@pytest.mark.processes
def test_a_verdict_says_that_it_rests_on_injected_readings(
    sampler: FakeSampler, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Still within one observation period after the last false reading, for it still counts; afterwards no more."""
    assert main(["inject", "memory_bytes=98", "--seconds", "5", "--name", name]) == 0
    sampler.feed(50.0)
    sampler.feed(*[50.0] * 9)
    with sm.attach(name) as reader:
        explanation = reader.explain()
        assert explanation.should_prune
        assert explanation.injected == ("memory.usage_bytes",)
        assert str(explanation).startswith("CRITICAL (INJECTED: memory.usage_bytes)")
        assert reader.snapshot().injected == (), "the newest sample itself is true again"
        sampler.feed(*[50.0] * 10)
        assert not reader.should_prune()
        assert reader.explain().injected == ()
        assert msgspec.json.decode(msgspec.json.encode(reader.explain()))["injected"] == []
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("memory: ")]
    assert lines[0].split(", ")[-1] == "INJECTED readings"  # the period may end with the episode


def test_check_says_that_readings_are_injected(
    sampler: FakeSampler, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inject", "cpu_percent=77", "--seconds", "3600", "--name", name]) == 0
    sampler.feed(50.0)
    assert main(["check", "--name", name]) == 0
    assert main(["check", "--json", "--name", name]) == 0
    text, encoded = capsys.readouterr().out.splitlines()
    assert text == "OK (INJECTED: cpu.cpu_percent)"
    assert msgspec.json.decode(encoded)["injected"] == ["cpu.cpu_percent"]


def test_what_is_injected_can_be_taken_back(sampler: FakeSampler, name: str) -> None:
    assert main(["inject", "cpu_percent=77", "--seconds", "60", "--name", name]) == 0
    sampler.feed(50.0)
    assert main(["inject", "--end", "--name", name]) == 0
    with sm.attach(name) as reader:
        assert reader.snapshot().cpu.cpu_percent == 77.0
        sampler.feed(50.0)
        assert (reader.snapshot().cpu.cpu_percent, reader.snapshot().injected) == (5.0, ())


def test_a_sampler_that_does_not_allow_it_is_left_alone(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    sampler = FakeSampler(name)
    try:
        sampler.feed(50.0)
        assert main(["inject", "memory_percent=97", "--name", name]) == 2
        injection.write(name, {"memory.usage_bytes": 98.0}, 60)
        sampler.feed(50.0)
        with sm.attach(name) as reader:
            assert not reader.should_prune()
    finally:
        sampler.close()
    assert "allow_injection" in capsys.readouterr().err


@pytest.mark.parametrize("readings", [["nonsense"], ["memory_percent=much"], ["no_such_metric=1"], []])
def test_what_cannot_be_injected_is_usage(sampler: FakeSampler, name: str, readings: list[str]) -> None:
    assert main(["inject", *readings, "--name", name]) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"values": 3}', '{"values": {"a": "x"}, "until_mono_ns": 9}'])
def test_a_file_that_is_no_injection_injects_nothing(sampler: FakeSampler, name: str, content: str) -> None:
    with open(names.side_path(name, names.INJECT_SUFFIX), "w", encoding="utf-8") as file:
        file.write(content)
    sampler.feed(50.0)

    assert injection.read(name) is None
    with sm.attach(name) as reader:
        assert reader.snapshot().injected == ()


def test_a_file_that_others_may_write_injects_nothing(sampler: FakeSampler, name: str) -> None:
    injection.write(name, {"memory.usage_bytes": 98.0}, 60)
    os.chmod(names.side_path(name, names.INJECT_SUFFIX), 0o666)

    assert injection.read(name) is None
