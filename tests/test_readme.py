"""What the README shows works as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from shm_monitor.config.resource import ResourceConfig
from tests.support.surroundings import ROOT, child_environment, remove_files

if TYPE_CHECKING:
    from pathlib import Path

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda code: code.split("\n")[0][:30])
def test_an_example_runs_as_written(example: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(example, encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-P", script.name],
            cwd=tmp_path,
            env=child_environment(SHM_MONITOR_NAME="readme"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        remove_files("readme")

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_every_setting_is_in_the_configuration_table() -> None:
    table = README[README.index("## Configuration") : README.index("## The command")]

    missing = [key for key in ResourceConfig.__struct_fields__ if key.upper() not in table]

    assert not missing
