"""Four GPUs that a script plays, read by the real nvidia-ml-py in a real sampler process; workers watch them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import shm_monitor
from shm_monitor.schema import Level
from shm_monitor.segment.flags import level_of
from tests.support.load_cgroup import sampler, snapshots
from tests.support.nvml_library import StandIn
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shm_monitor.snapshot.structs import LimitState, Snapshot
    from shm_monitor.worker.reader import Reader

pytestmark = pytest.mark.processes

TOTAL_BYTES = 80 << 30
CALM = "devices 4", "nvmlDeviceGetUtilizationRates * value 50 40"
PERIOD_SECONDS = 0.6


def memory_at(device: int, percent: float) -> str:
    """Return the line that gives *device* so much of its memory in use."""
    return f"nvmlDeviceGetMemoryInfo_v2 {device} value {round(percent / 100 * TOTAL_BYTES)} {TOTAL_BYTES}"


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    return StandIn.create(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="module")
def running(nvml: StandIn) -> Iterator[Reader]:
    """A sampler at 10 Hz with limits for the GPUs."""
    nvml.script(*CALM)
    with pytest.MonkeyPatch.context() as patch:
        for key, value in nvml.environ.items():
            patch.setenv(key, value)
        with sampler(
            check_interval=0.1,
            observation_period=PERIOD_SECONDS,
            max_gpu_usage_percent=95.0,
            max_gpu_memory_percent=90.0,
        ) as manager:
            yield manager.reader


@pytest.fixture
def reader(running: Reader, nvml: StandIn) -> Reader:
    """The reader of that sampler, all four GPUs healthy and at rest."""
    nvml.script(*CALM)
    wait_until(lambda: all(gpu.utilization_percent == 50.0 for gpu in running.snapshot().gpus))
    wait_until(lambda: not running.should_prune())
    return running


def limit(snapshot: Snapshot, name: str) -> LimitState:
    (found,) = [one for one in snapshot.limits if one.limit == name]
    return found


def test_of_four_gpus_only_the_full_one_presses_who_watches_it(reader: Reader, nvml: StandIn) -> None:
    """40/40/40/97.5 % have a mean of 54 %."""
    nvml.script(*CALM, *(memory_at(device, percent) for device, percent in enumerate([40, 40, 40, 97.5])))
    workers = [shm_monitor.attach(reader.name, watch=["memory", f"gpu-memory:{device}"]) for device in range(4)]
    wait_until(lambda: workers[3].should_prune() and reader.should_prune())  # the overall verdict is the worst
    snapshot, explanation = reader.snapshot(), workers[3].explain()

    assert [gpu.memory_percent for gpu in snapshot.gpus] == [40, 40, 40, 97.5]
    assert [worker.should_prune() for worker in workers] == [False, False, False, True]
    assert {(one.limit, one.value, one.limit_value) for one in explanation.reasons} == {("gpu-memory:3", 97.5, 90.0)}
    assert [len(worker.explain().reasons) for worker in workers[:3]] == [0, 0, 0]
    assert workers[3].headroom().limit == "gpu-memory:3"
    assert workers[3].headroom().ratio == pytest.approx(0.025)
    uuid = snapshot.gpus[3].uuid
    assert [shm_monitor.attach(reader.name, watch=[one]).should_prune() for one in (uuid, "gpu", "gpu:2")] == [
        True,
        True,
        False,
    ]


def test_a_hanging_call_costs_one_gpu_and_no_turn(reader: Reader, nvml: StandIn) -> None:
    before = reader.snapshot()
    nvml.script(*CALM, "nvmlDeviceGetTemperatureV 1 hang")
    wait_until(lambda: reader.snapshot().gpus[1].utilization_percent is None)
    nvml.script(
        *CALM,
        "nvmlDeviceGetTemperatureV 1 hang",
        *(f"nvmlDeviceGetUtilizationRates {device} value 6{device} 40" for device in (0, 2, 3)),
    )
    wait_until(lambda: reader.snapshot().gpus[3].utilization_percent == 63.0)
    list(snapshots(reader, 10))
    hung = reader.snapshot()

    assert [gpu.utilization_percent for gpu in hung.gpus] == [60.0, None, 62.0, 63.0]
    device = {name: why for name, why in hung.unavailable.items() if name.startswith("gpu:1.")}
    assert set(device.values()) == {"timeout"}
    assert not [name for name in hung.unavailable if name.startswith(("gpu:0.", "gpu:2.", "gpu:3."))]
    turns = hung.sequence - before.sequence + missed_turns(hung) - missed_turns(before)
    assert abs(turns - (hung.sampled_at - before.sampled_at) / 0.1) <= 2
    assert missed_turns(hung) - missed_turns(before) <= turns / 3, "a collect waits a second: ten turns"


def missed_turns(snapshot: Snapshot) -> int:
    assert snapshot.sampler.missed_turns_count is not None
    return snapshot.sampler.missed_turns_count


def test_a_gpu_that_hangs_while_it_presses_is_unknown_after_a_period(reader: Reader, nvml: StandIn) -> None:
    """Neither released at once, as if it were at 0, nor pressing for ever; and back when the call comes back."""
    nvml.script(*CALM, memory_at(2, 93.0))
    worker = shm_monitor.attach(reader.name, watch=["gpu-memory:2"])
    wait_until(worker.should_prune)
    nvml.script(*CALM, memory_at(2, 93.0), "nvmlDeviceGetMemoryInfo_v2 2 hang")
    wait_until(lambda: limit(reader.snapshot(), "gpu-memory:2").value is None)
    lost = reader.snapshot()
    wait_until(lambda: not worker.should_prune())
    wait_until(lambda: limit(reader.snapshot(), "gpu-memory:2").reasons == ("unknown",))
    held = held_samples(reader, lost.sequence)
    unknown, headroom = reader.snapshot(), worker.headroom()
    nvml.script(*CALM, memory_at(2, 93.0))
    wait_until(worker.should_prune)

    assert limit(lost, "gpu-memory:2").level == "prune", "what was seen last holds for a period"
    assert PERIOD_SECONDS / 0.1 / 2 < held <= PERIOD_SECONDS / 0.1 + 2
    assert limit(unknown, "gpu-memory:2").level == "ok"
    assert unknown.unavailable["gpu:2.memory_percent"] == "timeout"
    assert headroom.ratio is None
    assert limit(unknown, "gpu-memory:1").reasons == ()


def held_samples(reader: Reader, first: int) -> int:
    """Return for how many samples from number *first* on anything presses; only that one GPU does."""
    return sum(level_of(sample.verdict) >= Level.PRUNE for sample in reader.view().samples(after=first - 1))


def test_a_gpu_that_is_lost_is_lost_alone_and_comes_back(reader: Reader, nvml: StandIn) -> None:
    nvml.script(*CALM, "* 0 error 15")
    wait_until(lambda: reader.snapshot().gpus[0].utilization_percent is None)
    lost = reader.snapshot()
    wait_until(lambda: reader.snapshot().sampler.collectors["gpu"].errors_count > 0)  # of a device nothing is known
    nvml.script(*CALM)
    wait_until(lambda: reader.snapshot().gpus[0].utilization_percent == 50.0)

    assert lost.unavailable["gpu:0.memory_percent"] == "gpu_lost"
    assert [gpu.utilization_percent for gpu in lost.gpus[1:]] == [50.0] * 3
    assert lost.level == "ok"
