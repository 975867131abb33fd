"""shm_monitor.testing: what users' tests have in the place of a sampler."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import shm_monitor as sm
from shm_monitor import testing
from tests.support.surroundings import child_environment, files_of

if TYPE_CHECKING:
    from shm_monitor.testing import LevelName


@pytest.mark.parametrize("level", ["ok", "warn", "prune", "critical"])
def test_memory_is_at_the_level_that_was_asked_for(level: LevelName) -> None:
    with testing.sampler(level) as reader:
        assert reader.level() is sm.Level[level.upper()]
        assert reader.should_prune() == (level in {"prune", "critical"})
        assert reader.status().state == "live"


@pytest.mark.parametrize("level", ["warn", "prune", "critical"])
@pytest.mark.parametrize("shed_bytes", [1_000_000, 7 << 30])
def test_what_is_to_be_shed_is_what_was_asked_for(level: LevelName, shed_bytes: int) -> None:
    with testing.sampler(level, shed_bytes=shed_bytes) as reader:
        assert reader.shed_bytes() == pytest.approx(shed_bytes, abs=2)


def test_it_is_the_default_while_it_runs_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHM_MONITOR_NAME", "another")
    with testing.sampler("prune") as reader:
        assert sm.attach().should_prune()
        assert sm.Governor(64).step() < 64
        name = reader.name

    assert os.environ["SHM_MONITOR_NAME"] == "another"
    assert files_of(name) == []


@pytest.mark.processes
def test_a_process_that_a_test_starts_asks_it_too() -> None:
    with testing.sampler("critical"):
        code = "import shm_monitor as sm; print(sm.attach().level().text)"
        environ = child_environment(SHM_MONITOR_NAME=os.environ["SHM_MONITOR_NAME"])
        assert subprocess.check_output([sys.executable, "-P", "-c", code], text=True, env=environ) == "critical\n"


def test_a_test_can_go_from_level_to_level_and_set_readings(name: str) -> None:
    with testing.FakeSampler(name, max_cpu_usage_percent=80.0) as made:
        made.reach("ok")
        reader, seen = sm.attach(name), []
        for level in ("ok", "prune", "critical", "ok"):
            made.reach(level)
            seen.append(reader.level().text)
        made.readings["cpu.cpu_percent"] = 99.0
        made.feed(*[500.0] * 10)

        assert seen == ["ok", "prune", "critical", "ok"]
        assert [reason.limit for reason in reader.explain().reasons] == ["cpu"]
        reader.close()


@pytest.mark.parametrize("given", [("red", None), ("ok", 5)])
def test_what_cannot_be_is_refused_with_what_is_allowed(given: tuple[LevelName, int | None]) -> None:
    with pytest.raises(ValueError, match="allowed is"), testing.sampler(given[0], shed_bytes=given[1]):
        pass
