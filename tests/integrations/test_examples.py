"""Every example of docs/examples runs as it is, beside a real sampler, and is short."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from shm_monitor.errors import install_command
from tests.support.real_sampler import RealSampler, fast
from tests.support.surroundings import ROOT, child_environment

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
# What each needs, and something that it prints.
NEEDS = {
    "asgi_app": ("starlette", "200"),
    "celery_calm": ("celery", "10000045"),
    "dask_map": ("distributed", "10000045"),
    "joblib_parallel": ("joblib", "10000045"),
    "lightning_fit": ("lightning", "steps 16"),
    "optuna_study": ("optuna", "best:"),
    "otel_gauges": ("opentelemetry.sdk", "system.memory.usage"),
    "ray_cluster": ("pyarrow", "100 rows"),  # of ray[data]; the benchmarks install ray without it
    "torch_loop": ("torch", "loss "),
    "transformers_trainer": ("transformers", "steps 8"),
}
LINES_MAX = 30
BLOCKED = {  # by integration: its extra, and the package that is not there
    "dask": ("dask", "distributed"),
    "joblib": ("joblib", "joblib"),
    "lightning": ("lightning", "lightning"),
    "opentelemetry": ("otel", "opentelemetry"),
    "optuna": ("optuna", "optuna"),
    "ray": ("ray", "ray"),
    "torch": ("torch", "torch"),
    "transformers": ("transformers", "transformers"),
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_as_it_is(example: Path, name: str, tmp_path: Path) -> None:
    package, printed = NEEDS[example.stem]
    if not _is_installed(package):
        pytest.skip(f"{package} is not installed (make test-frameworks, make test-torch)")
    with RealSampler(fast(name)) as sampler:
        sampler.report()
        done = subprocess.run(
            [sys.executable, "-P", str(example)],
            cwd=tmp_path,
            env=child_environment(SHM_MONITOR_NAME=name, OPENBLAS_NUM_THREADS="1"),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    assert done.returncode == 0, done.stderr
    assert printed in done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_in_the_table(example: Path) -> None:
    assert len(example.read_text().splitlines()) <= LINES_MAX
    assert f"examples/{example.name}" in (ROOT / "docs" / "integrations.md").read_text()


@pytest.mark.parametrize(("integration", "extra"), [(name, extra) for name, (extra, _) in BLOCKED.items()])
def test_an_integration_without_its_framework_says_what_to_install(integration: str, extra: str) -> None:
    blocked = BLOCKED[integration][1]
    code = f"import sys; sys.modules[{blocked!r}] = None; import shm_monitor.integrations.{integration}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=child_environment(), capture_output=True, text=True, check=False
    )

    assert "MissingDependencyError" in done.stderr
    assert install_command(extra) in done.stderr


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def test_no_integration_is_loaded_by_the_package() -> None:
    code = (
        "import sys, shm_monitor as sm; sm.attach; sm.Governor; print([m for m in sys.modules if 'integrations' in m])"
    )
    environ = child_environment(PATH=os.environ["PATH"])
    done = subprocess.run([sys.executable, "-P", "-c", code], env=environ, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
