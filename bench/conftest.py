"""What every benchmark may use, and what the JSON says about the run: never the machine's name."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure import Rows
from bench.stage import new_name

collect_ignore = [] if sys.platform == "linux" else ["bench_sampler.py", "bench_fleet.py", "bench_reader.py"]
PACKAGES = ("shm-monitor", "numpy", "numba", "psutil", "msgspec")
_questions = pytest.StashKey[dict[str, str]]()
_skipped = pytest.StashKey[dict[str, str]]()
_failed = pytest.StashKey[dict[str, str]]()
_load_before = pytest.StashKey[float]()
_chosen = pytest.StashKey[bool]()


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
    for key in (_questions, _skipped, _failed):
        config.stash[key] = {}
    config.stash[_chosen] = [Path(arg).resolve() for arg in config.args] != [Path(__file__).parent]
    config.stash[_load_before] = os.getloadavg()[0]


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Keep that some were left out: what is published is a whole run."""
    items[0].config.stash[_chosen] = True


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Keep the question that the benchmark asks: the first line of its docstring."""
    text = getattr(getattr(item, "function", None), "__doc__", None) or ""
    item.config.stash[_questions][item.nodeid] = text.strip().partition("\n")[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep why a benchmark was skipped, or failed."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        item.config.stash[_skipped][item.nodeid] = report.longrepr[2].removeprefix("Skipped: ")
    elif report.failed:
        item.config.stash[_failed][item.nodeid] = str(report.longreprtext.splitlines()[-1:])
    return report


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, object]:
    """Return what decides the numbers, and nothing that names the machine."""
    return {
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(),
        "usable_cores": len(psutil.Process().cpu_affinity()) if psutil.LINUX else psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {package: importlib.metadata.version(package) for package in PACKAGES},
        "load_before": config.stash[_load_before],
    }


def pytest_benchmark_generate_commit_info(config: pytest.Config) -> dict[str, object]:
    """Return nothing: the table is committed with the code that it measures."""
    return {}


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: object, output_json: dict[str, Any]) -> None:
    """Add the questions, the date, and what was skipped or failed; drop the single rounds."""
    output_json["date"] = datetime.datetime.now(datetime.UTC).date().isoformat()
    output_json["skipped"] = config.stash[_skipped]
    output_json["failed"] = config.stash[_failed]
    output_json["chosen"] = config.stash[_chosen]
    for one in output_json["benchmarks"]:
        one["question"] = config.stash[_questions].get(one["fullname"], "")
        one["stats"].pop("data", None)


def _cpu_model() -> str:
    """Return the name that the CPU gives itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.processor() or platform.machine())
