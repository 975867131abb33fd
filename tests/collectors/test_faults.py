"""Every collector against trees in which one file at a time is missing, empty, garbage or forbidden."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shm_monitor import collectors
from shm_monitor.collectors.base import Collector
from shm_monitor.collectors.files import ProcFile, why
from shm_monitor.schema import Unknown, why_unknown
from tests.support.host_trees import Tree, sample

pytestmark = pytest.mark.thorough

GARBAGE = "gar bage: \N{SNOWMAN} -1\n\n99999999999999999999999999999999 x\n"
# Who is in which cgroup, and what is mounted: without it there are no levels and the host is all there is.
PLACES = {"proc/self/cgroup", "proc/self/mountinfo"}


def files_of(name: str) -> list[str]:
    """Return the files of the recorded tree *name*."""
    text = (Path(__file__).parents[1] / "support" / "data" / f"{name}.tree").read_text()
    return [line[4:-4] for line in text.splitlines() if line.startswith("==> ")]


def host_collectors(tree: Tree) -> list[Collector]:
    """Return the collectors of *tree* that read files, GPU left out."""
    found = collectors.discover(roots=tree.roots, clock=tree.clock, owner_pid=77)
    return [collector for collector in found if collector.name != "gpu"]


def read_all(found: list[Collector]) -> dict[str, float | str]:
    """Return all readings but those of the real /dev/shm, which are not in the tree."""
    everything = {name: value for collector in found for name, value in sample(collector).items()}
    return {name: value for name, value in everything.items() if not name.startswith("memory.shm_")}


DAMAGES = ("missing", "empty", "garbage", "a directory")


@contextlib.contextmanager
def damaged(tree: Tree, file: str, how: str) -> Iterator[None]:
    """Damage *file* for a while."""
    path = tree.top / file
    text = path.read_text()
    path.unlink()
    if how == "a directory":
        path.mkdir()
    elif how != "missing":
        path.write_text({"empty": "", "garbage": GARBAGE}[how])
    try:
        yield
    finally:
        if how == "a directory":
            path.rmdir()
        path.write_text(text)


@pytest.mark.parametrize("name", ["v1", "v2", "hybrid"])
def test_a_damaged_file_makes_readings_unknown_and_never_wrong(tmp_path: Path, name: str) -> None:
    """Whatever differs from the sample before is unknown; most does not differ; all is back two samples later."""
    tree = Tree(name, tmp_path)
    found = host_collectors(tree)

    def next_sample() -> dict[str, float | str]:
        tree.clock.forward(1)
        return read_all(found)

    next_sample()
    before = next_sample()
    for file, how in itertools.product(files_of(name), DAMAGES):
        with damaged(tree, file, how):
            after = next_sample()
        changed = {key: value for key, value in after.items() if value != before[key]}
        assert len(changed) < len(before) / 2
        if file not in PLACES:
            assert all(isinstance(value, str) for value in changed.values()), (file, how, changed)
        next_sample()
        assert next_sample() == before, (file, how)


@pytest.mark.parametrize("name", ["v1", "v2", "hybrid"])
def test_a_file_that_is_damaged_from_the_start_stops_no_collector(tmp_path: Path, name: str) -> None:
    tree = Tree(name, tmp_path)
    for file, how in itertools.product(files_of(name), DAMAGES):
        with damaged(tree, file, how):
            found = host_collectors(tree)
            read_all(found)
            tree.clock.forward(1)
            after = read_all(found)
        known = [value for value in after.values() if not isinstance(value, str)]
        assert len(known) > 10
        assert all(value >= 0 for value in known), (file, how, after)
        for collector in found:
            collector.close()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(2, "absent"), Unknown.NOT_SUPPORTED),
        (OSError(19, "the cgroup was removed"), Unknown.NOT_SUPPORTED),
        (OSError(95, "pressure is switched off"), Unknown.NOT_SUPPORTED),
        (PermissionError(13, "forbidden"), Unknown.NO_PERMISSION),
        (PermissionError(1, "forbidden"), Unknown.NO_PERMISSION),
        (OSError(5, "input/output"), Unknown.ERROR),
    ],
)
def test_the_reason_follows_from_errno(error: OSError, reason: Unknown) -> None:
    assert why_unknown(why(error)) is reason


def test_a_file_of_procfs_is_kept_open_and_shows_the_present() -> None:
    file = ProcFile("/proc/self/stat")
    first = file.read()
    sum(range(3_000_000))

    assert file.read().split()[0] == first.split()[0]
    file.close()
    assert file.read().split()[0] == first.split()[0]
    file.close()


@pytest.mark.processes
def test_a_process_that_ended_is_never_another_one_with_its_pid() -> None:
    """A pid is used again: the file of the first process stays gone, whatever is under its name now."""
    with subprocess.Popen(["sleep", "60"]) as process:
        file = ProcFile(f"/proc/{process.pid}/status", follow=False)
        first = file.read()
        file.path = "/proc/self/status"
        process.kill()
        process.wait()

        assert b"State:" in first

        with pytest.raises(ProcessLookupError):
            file.read()
        file.close()


def test_a_list_longer_than_a_page_is_read_whole() -> None:
    """A seq_file hands out one page for each read, and the mappings of a Python process are more."""
    file = ProcFile("/proc/self/maps")
    data = file.read()
    file.close()

    assert len(data) > 4096
    assert data.splitlines()[-1] == Path("/proc/self/maps").read_bytes().splitlines()[-1]
