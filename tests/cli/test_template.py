"""``config init`` writes every setting as a comment, and each line counts once its # is gone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from shm_monitor.cli import main
from shm_monitor.cli.template import meanings, template, when_empty
from shm_monitor.config.resource import ResourceConfig

if TYPE_CHECKING:
    from pathlib import Path


def test_every_setting_is_there_with_its_meaning() -> None:
    assert set(meanings()) == set(ResourceConfig.__struct_fields__)
    for key in ResourceConfig.__struct_fields__:
        assert re.search(rf"^#{key.upper()}=", template(), re.MULTILINE)


def test_as_it_is_and_without_its_comments_it_says_what_holds_anyway(tmp_path: Path) -> None:
    file = tmp_path / "my.env"
    assert main(["config", "init", "-o", str(file)]) == 0
    assert ResourceConfig.load(str(file), {}) == ResourceConfig()

    lines = [line[1:] if re.match(r"#[A-Z_]+=", line) else line for line in file.read_text().splitlines()]
    file.write_text("\n".join(lines))
    assert ResourceConfig.load(str(file), {}) == ResourceConfig()


@pytest.mark.parametrize("key", ResourceConfig.__struct_fields__)
def test_a_setting_that_nobody_made_is_shown_by_what_then_holds(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--env-file", ""]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{key} "))

    if getattr(ResourceConfig(), key) in {None, ()}:
        assert f"({when_empty()[key]})" in line
    else:
        assert f" {getattr(ResourceConfig(), key)} " in line


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / ".env"
    file.write_text("NAME=mine\n")

    assert main(["config", "init", "-o", str(file)]) == 2
    assert "that does not exist" in capsys.readouterr().err
    assert file.read_text() == "NAME=mine\n"


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "init", "-o", str(tmp_path / "no" / ".env")]) == 2
    assert "must be writable" in capsys.readouterr().err


def test_it_goes_to_stdout_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "init", "-o", "-"]) == 0
    assert "#CHECK_INTERVAL=1.0" in capsys.readouterr().out
