"""The README's loop keeps working under pressure, its lines install; tests/test_documents.py runs the rest."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import shm_monitor as sm
from shm_monitor.config.resource import ResourceConfig
from tests.support.fake_sampler import FakeSampler
from tests.support.surroundings import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.processes

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_loop_that_is_shown_keeps_working_under_pressure(name: str) -> None:
    """Pressed after 100 of 1,000 batches of up to 64: halved once, not at every question."""
    sampler = FakeSampler(name)
    sampler.feed(50.0)

    def batches(count: int) -> Iterator[int]:
        for number in range(count):
            if number == 100:
                sampler.feed(*[91.0] * 20)
            yield number

    shown: dict[str, Any] = {"__name__": "readme", "range": batches}
    exec(next(code for code in EXAMPLES if "def worker" in code), shown)
    with sm.attach(name) as reader:
        done = shown["worker"](name, 1000)
        assert reader.should_prune()
    sampler.close()

    assert 900 * 16 <= done < 1000 * 64


def test_every_setting_is_in_the_configuration_table() -> None:
    table = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")

    missing = [key for key in ResourceConfig.__struct_fields__ if key.upper() not in table]

    assert not missing


@pytest.mark.slow
@pytest.mark.parametrize("line", re.findall(r"^\$ (pip install .*)$", README, re.MULTILINE))
def test_it_is_installed_by_the_line_that_is_printed(line: str, tmp_path: Path) -> None:
    """By somebody who has a clone, or the address of a git repository; here without what it needs."""
    clone, venv = tmp_path / "clone", tmp_path / "venv"
    for part in ("shm_monitor", "api"):
        shutil.copytree(ROOT / part, clone / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, clone / part)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.example")
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=clone, check=True)
    address = line.replace("https://HOST/OWNER/shm-monitor.git", f"file://localhost{clone}")
    words = shlex.split(address.replace("pip install", "pip install --quiet --no-deps"))
    subprocess.run([venv / "bin" / "python", "-m", *words], cwd=clone, check=True)

    assert (
        subprocess.run([venv / "bin" / "python", "-c", "import shm_monitor"], cwd=tmp_path, check=False).returncode == 0
    )
    assert (venv / "bin" / "shm-monitor").exists()
