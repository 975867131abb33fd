"""Record and replay from the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from shm_monitor.cli import main
from tests.support.fake_sampler import FakeSampler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def sampler(name: str) -> Iterator[FakeSampler]:
    made = FakeSampler(name)
    made.feed(*[50.0] * 12, *[98.0] * 3, *[50.0] * 15)
    yield made
    made.close()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Ten minutes of memory in a spreadsheet's format: calm, over the limit for 150 s, calm."""
    usages = [60e8] * 100 + [93.5e8] * 150 + [70e8] * 350
    rows = [f"{time},{usage},1e10" for time, usage in enumerate(usages)]
    path = tmp_path / "yesterday.csv"
    path.write_text("\n".join(["time,memory.usage_bytes,memory.capacity_bytes", *rows]), encoding="utf-8")
    return path


def test_what_the_ring_has_can_be_recorded_and_replayed(
    sampler: FakeSampler, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "run.trace")

    assert main(["record", file, "--once", "--name", name]) == 0
    assert main(["replay", file, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [limit["name"] for limit in report["limits"]] == ["overall", "memory"]
    assert len(report["limits"][1]["episodes"]) == 1


def test_recording_again_adds_only_what_is_new(sampler: FakeSampler, name: str, tmp_path: Path) -> None:
    file = tmp_path / "run.trace"
    main(["record", str(file), "--once", "--name", name])
    size = file.stat().st_size
    main(["record", str(file), "--once", "--name", name])

    assert file.stat().st_size == size


@pytest.mark.parametrize("way", ["same", "hard link", "symbolic link", "against"])
def test_a_page_never_overwrites_what_is_read(table: Path, capsys: pytest.CaptureFixture[str], way: str) -> None:
    page, tried = table.with_name("page.html"), table.with_name("tried.env")
    tried.write_text("TARGET_UTILIZATION=0.5\n", encoding="utf-8")
    if way == "hard link":
        page.hardlink_to(table)
    elif way == "symbolic link":
        page.symlink_to(table)
    else:
        page = table if way == "same" else tried
    before = page.read_bytes()

    assert main(["replay", str(table), "--against", str(tried), "--html", str(page)]) == 2
    assert "which is read; name another file" in capsys.readouterr().err
    assert page.read_bytes() == before


def test_a_page_that_cannot_be_written_whole_leaves_the_old_one(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = table.with_name("page.html")
    page.write_text("the old one", encoding="utf-8")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)

    assert main(["replay", str(table), "--html", str(page)]) == 2
    assert page.read_text(encoding="utf-8") == "the old one"
    assert sorted(one.name for one in page.parent.iterdir()) == ["page.html", "yesterday.csv"]


def test_a_table_of_text_is_replayed(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(table)]) == 0
    assert "memory" in capsys.readouterr().out


def test_two_configurations_are_compared(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.env"
    other.write_text("MAX_MEMORY_USAGE_MB=9200\n", encoding="utf-8")  # 9.6e9 bytes

    assert main(["replay", str(table), "--against", str(other), "--json"]) == 0
    changes = json.loads(capsys.readouterr().out)["changes"]
    assert [len(change["before"]["episodes"]) for change in changes] == [1, 1]
    assert [len(change["after"]["episodes"]) for change in changes] == [0, 0]


def test_the_page_is_self_contained(table: Path, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    page = tmp_path / "out.html"

    assert main(["replay", str(table), "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "<script src=" not in text
    assert '"label":"prune (level)"' in text


@pytest.mark.parametrize("content", [None, "", "time\n", "no,such,trace\n1,2,3\n"])
def test_what_is_no_trace_is_usage(content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.csv"
    if content is not None:
        path.write_text(content, encoding="utf-8")

    assert main(["replay", str(path)]) == 2
    assert "bad.csv" in capsys.readouterr().err
