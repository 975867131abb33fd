"""Workers that are present share a GPU that a script plays: who holds most of it is asked for its memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.herd import Worker
from tests.support.load_cgroup import sampler
from tests.support.nvml_library import StandIn
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GB = 1 << 30
TOTAL_BYTES = 80 * GB
INITIAL_NAMESPACE = "pid:[4026531836]"  # include/linux/proc_ns.h; elsewhere the driver's pids prove nothing
pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        not os.path.exists("/proc/self/ns/pid") or os.readlink("/proc/self/ns/pid") != INITIAL_NAMESPACE,
        reason="in a pid namespace the pids of a driver that has no device files here are not believed",
    ),
]


class Gpus:
    """Two GPUs, what is in use of the first, and who holds it."""

    def __init__(self, nvml: StandIn, name: str) -> None:
        self.nvml, self.name = nvml, name
        self.workers: list[Worker] = []

    def worker(self, *watch: str) -> Worker:
        self.workers.append(Worker(self.name, 1, *watch))
        return self.workers[-1]

    def show(self, used_gb: float, *lines: str) -> None:
        self.nvml.script(
            "devices 2",
            "nvmlDeviceGetMemoryInfo_v2 * value 1073741824 85899345920",
            f"nvmlDeviceGetMemoryInfo_v2 0 value {round(used_gb * GB)} {TOTAL_BYTES}",
            *lines,
        )

    @staticmethod
    def held(worker: Worker, size_gb: float) -> str:
        return f"process 0 {worker.pid} {round(size_gb * GB)}"


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpus]:
    nvml = StandIn.create(tmp_path)
    for key, value in nvml.environ.items():
        monkeypatch.setenv(key, value)
    nvml.script("devices 2", "nvmlDeviceGetMemoryInfo_v2 * value 1073741824 85899345920")
    with sampler(check_interval=0.1, observation_period=1.0, max_gpu_memory_percent=90.0) as manager:
        made = Gpus(nvml, manager.name)
        yield made
        for one in made.workers:
            one.kill()


def test_who_holds_most_of_a_gpu_is_asked_for_what_is_too_much_and_the_others_go_on(gpus: Gpus) -> None:
    large, small, elsewhere = gpus.worker("all"), gpus.worker("all"), gpus.worker("all")
    onlooker = gpus.worker("memory")
    held = [gpus.held(large, 50), gpus.held(small, 14), gpus.held(onlooker, 10)]
    gpus.show(74.4, *held)  # 93 % with a limit of 90 and a target of 81
    # The flag comes after the request that it points to.
    wait_until(lambda: (asked := large.ask())["prune"] and asked["request"] is not None)
    told = large.ask()

    assert told["limit"] == "gpu-memory:0"
    assert 9.5 * GB < told["request"] < 12.5 * GB, "what is over the target, and the margin"
    assert "GB of gpu-memory:0 in round" in told["text"]
    assert "because it holds 50.0 GB, 2.0 x its share" in told["text"]
    for one in (small, elsewhere, onlooker):
        assert not one.ask()["prune"]
        assert one.ask()["request"] is None


def test_what_was_given_back_ends_the_request(gpus: Gpus) -> None:
    worker = gpus.worker("all")
    gpus.show(74.4, gpus.held(worker, 70))
    wait_until(lambda: worker.ask()["request"] is not None)
    gpus.show(64.0, gpus.held(worker, 59.6))

    wait_until(lambda: worker.ask()["request"] is None and not worker.ask()["prune"])


def test_without_a_list_of_processes_all_are_told(gpus: Gpus) -> None:
    first, second = gpus.worker("all"), gpus.worker("gpu-memory:0")
    unsupported = [f"nvmlDeviceGet{kind}RunningProcesses_v{version} 0 error 3" for kind in KINDS for version in (2, 3)]
    gpus.show(74.4, *unsupported)

    wait_until(lambda: first.ask()["prune"] and second.ask()["prune"])
    assert first.ask()["request"] is None


KINDS = ("Compute", "Graphics")
