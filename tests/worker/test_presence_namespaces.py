"""Workers in pid namespaces: the kernel says who holds a lock in the words of the one that asks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import shm_monitor as sm
from shm_monitor.segment import presence
from tests.support.fake_sampler import FakeSampler
from tests.support.herd import Worker
from tests.support.host_trees import is_root
from tests.support.surroundings import child_environment
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

MB = 2**20
IN_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child")
SAMPLER = """
import sys
from tests.support.fake_sampler import FakeSampler
sampler = FakeSampler(sys.argv[1], observation_period=4.0, target_utilization=0.9, stale_after=60.0)
sampler.feed(*[50.0] * 6)
print("ready", flush=True)
for line in sys.stdin:
    sampler.feed(float(line))
    print("fed", flush=True)
sampler.close()
"""


def may_unshare() -> bool:
    tool = shutil.which("unshare")
    return (
        tool is not None and subprocess.run([*IN_NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    )


pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not presence.HAS_PRESENCE, reason="record locks and /proc are looked at as Linux has them"),
    pytest.mark.skipif(not is_root() or not may_unshare(), reason="making pid namespaces needs root and unshare(1)"),
]


@pytest.fixture
def sampler(name: str) -> Iterator[FakeSampler]:
    made = FakeSampler(name, observation_period=4.0, target_utilization=0.9, stale_after=60.0)
    made.feed(*[50.0] * 6)
    yield made
    made.close()


@pytest.mark.parametrize("within", [IN_NAMESPACE, (*IN_NAMESPACE, "--mount-proc")], ids=["", "with a /proc of its own"])
def test_a_worker_in_a_container_is_seen_and_asked_by_a_sampler_of_the_host(
    sampler: FakeSampler, name: str, within: tuple[str, ...]
) -> None:
    """Its record lock has the pid of the looker's namespace, or of one that it can be seen from: the host's."""
    inside, beside = Worker(name, 64, within=within), Worker(name, 8)
    reader = sm.attach(name)

    def is_asked() -> bool:
        sampler.feed(90.5)
        return inside.ask()["request"] is not None

    try:
        wait_until(is_asked)
        shown = {one.slot: one for one in reader.snapshot().present}[inside.slot]
        with open(f"/proc/{shown.pid}/status") as file:
            ids = next(line for line in file if line.startswith("NSpid:")).split()[1:]

        assert ids == [str(shown.pid), "1"], "that process, which is the first one in there"
        assert 50 * MB < shown.held_bytes < 90 * MB
        assert not beside.ask()["prune"]
    finally:
        inside.kill()
        beside.kill()


def test_a_worker_that_the_sampler_cannot_see_is_told_what_everybody_is(name: str) -> None:
    """The sampler lives in a container: for it the holder of the lock has no pid."""
    command = [*IN_NAMESPACE, "--mount-proc", sys.executable, "-c", SAMPLER, name]
    with subprocess.Popen(
        command, env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as contained:
        assert contained.stdin is not None
        assert contained.stdout is not None
        assert contained.stdout.readline() == "ready\n"
        worker = Worker(name, 64)

        def is_told() -> bool:
            print("90.5", file=contained.stdin, flush=True)
            assert contained.stdout is not None
            assert contained.stdout.readline() == "fed\n"
            return worker.ask()["prune"] is True

        try:
            wait_until(is_told)
            told = worker.ask()
            assert (told["level"], told["request"]) == ("PRUNE", None)
            assert [one.slot for one in sm.attach(name).snapshot().present] == [worker.slot]
        finally:
            worker.kill()
            contained.communicate()
