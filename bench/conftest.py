"""What every benchmark may use, and what the JSON says about the machine: never its name."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure import Rows
from bench.stage import new_name

PACKAGES = ("shm-monitor", "numpy", "numba", "psutil", "msgspec", "pytest-benchmark")
_questions = pytest.StashKey[dict[str, str]]()
_skipped = pytest.StashKey[dict[str, str]]()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own environment must not decide a benchmark."""
    for key in list(os.environ):
        if key.startswith("SHM_MONITOR_"):
            monkeypatch.delenv(key)


@pytest.fixture
def name() -> Iterator[str]:
    """A sampler name that nobody else uses."""
    with new_name() as unique:
        yield unique


@pytest.fixture
def rows(benchmark: BenchmarkFixture) -> Rows:
    """Where a benchmark that is more than one simple timing puts what it saw."""
    return Rows(benchmark.extra_info)


def pytest_configure(config: pytest.Config) -> None:
    """Prepare to keep what the JSON of pytest-benchmark leaves out."""
    config.stash[_questions] = {}
    config.stash[_skipped] = {}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Keep the question that the benchmark asks: the first line of its docstring."""
    text = getattr(getattr(item, "function", None), "__doc__", None) or ""
    item.config.stash[_questions][item.nodeid] = text.strip().partition("\n")[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Keep why a benchmark was skipped."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        item.config.stash[_skipped][item.nodeid] = report.longrepr[2].removeprefix("Skipped: ")
    return report


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, object]:
    """Return what decides the numbers, and nothing that names the machine."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {package: importlib.metadata.version(package) for package in PACKAGES},
        "load_before": os.getloadavg()[0],
    }


def pytest_benchmark_generate_commit_info(config: pytest.Config) -> dict[str, object]:
    """Return nothing: the table is committed with the code that it measures."""
    return {}


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: object, output_json: dict[str, Any]) -> None:
    """Add the questions, the date and what was skipped; drop the single rounds."""
    output_json["date"] = datetime.datetime.now(datetime.UTC).date().isoformat()
    output_json["skipped"] = config.stash[_skipped]
    for one in output_json["benchmarks"]:
        one["question"] = config.stash[_questions].get(one["fullname"], "")
        one["stats"].pop("data", None)


def _cpu_model() -> str:
    """Return the name that the CPU gives itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.processor() or platform.machine())
