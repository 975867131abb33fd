"""GPUs that hang, get lost and come back, and an NVML that goes: nothing of it may reach another device."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.children import PYTHON
from tests.support.nvml_library import GpuProcess, RemoteError, Sample, StandIn, gpu_process, of_device
from tests.support.surroundings import child_environment

pytestmark = pytest.mark.processes

HANG = "nvmlDeviceGetTemperatureV 2 hang"


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    return StandIn.create(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="module")
def process(nvml: StandIn) -> Iterator[GpuProcess]:
    """One process for the tests that leave nothing hanging in it."""
    with gpu_process(nvml.environ) as process:
        yield process


@pytest.fixture
def own_process(nvml: StandIn) -> Iterator[GpuProcess]:
    """A process that a test may leave with a call that never comes back."""
    with gpu_process(nvml.environ) as process:
        yield process


def test_a_hanging_call_costs_its_device_alone(nvml: StandIn, own_process: GpuProcess) -> None:
    nvml.script("devices 8")
    own_process.discover(timeout_seconds=1.5)

    nvml.script("devices 8", HANG)
    first = own_process.collect()
    nvml.script("devices 8", HANG, "nvmlDeviceGetUtilizationRates 7 value 99")
    second = own_process.collect()

    assert _reasons(first, "2") == _reasons(second, "2") == {"timeout"}
    assert first["gpu:7.utilization_percent"] == 70.0
    assert second["gpu:7.utilization_percent"] == 99.0


def test_a_hanging_device_is_not_asked_again_before_its_call_comes_back(nvml: StandIn, own_process: GpuProcess) -> None:
    """So there is one thread in it, not one more with every sample, and only the first sample waits."""
    nvml.script("devices 3")
    own_process.discover(timeout_seconds=1.0)
    own_process.collect()
    threads = own_process.threads()
    nvml.forget()

    nvml.script("devices 3", HANG)
    for _ in range(20):
        own_process.collect()

    assert nvml.calls("nvmlDeviceGetTemperatureV", "2") == 1
    assert nvml.calls("nvmlDeviceGetTemperatureV", "1") == 20
    assert own_process.threads() == threads


def test_a_device_that_hung_is_read_again_when_its_call_comes_back(nvml: StandIn, own_process: GpuProcess) -> None:
    nvml.script("devices 3", HANG)
    own_process.discover(timeout_seconds=0.5)
    assert _reasons(own_process.collect(), "2") == {"timeout"}

    nvml.script("devices 3")

    assert _until(own_process, "gpu:2.temperature_celsius", 42.0)


def test_a_reading_that_takes_longer_than_is_waited_for_has_a_value_when_it_comes(
    nvml: StandIn, own_process: GpuProcess
) -> None:
    """Each of them was thrown away, and the device never had a value."""
    nvml.script("devices 1", "nvmlDeviceGetTemperatureV 0 slow 400")
    own_process.discover(timeout_seconds=0.1)

    assert _until(own_process, "gpu:0.temperature_celsius", 40.0)
    assert own_process.collect()["gpu:0.temperature_celsius"] == 40.0


def test_every_device_hanging_is_no_deadlock(nvml: StandIn, own_process: GpuProcess) -> None:
    nvml.script("devices 8")
    own_process.discover(timeout_seconds=0.5)

    nvml.script("devices 8", "* 0 hang", *(f"* {device} hang" for device in range(1, 8)))

    assert set(own_process.collect().values()) == {"timeout"}
    assert set(own_process.collect().values()) == {"timeout"}
    nvml.script("devices 8")
    assert _until(own_process, "gpu:0.temperature_celsius", 40.0)


def test_a_process_ends_while_a_call_hangs(nvml: StandIn, own_process: GpuProcess) -> None:
    nvml.script("devices 3")
    own_process.discover(timeout_seconds=0.5)
    nvml.script("devices 3", HANG)
    own_process.collect()

    assert own_process.end() == 0


def test_a_lost_gpu_is_lost_alone_and_comes_back(nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 8")
    process.discover()
    healthy = process.collect()

    nvml.script("devices 8", "* 3 error 15")
    lost = process.collect()
    nvml.script("devices 8")
    back = process.collect()

    assert _reasons(lost, "3") == {"gpu_lost"}
    assert of_device(lost, "4") == of_device(healthy, "4")
    assert of_device(back, "3") == of_device(healthy, "3")


def test_a_lost_gpu_costs_one_call_a_sample(nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 2")
    process.discover()
    nvml.script("devices 2", "* 1 error 15")
    process.collect()
    nvml.forget()

    process.collect()

    assert nvml.calls("nvmlDeviceGetHandleByUUID", "1") == 1
    assert nvml.calls("nvmlDeviceGetPowerUsage", "1") == 0


def test_nvml_is_opened_again_for_a_lost_gpu_only_every_five_minutes(nvml: StandIn, process: GpuProcess) -> None:
    """After a reset the driver lists it anew, but opening NVML costs the healthy ones time."""
    nvml.script("devices 2")
    process.discover()
    nvml.script("devices 2", "* 1 error 15")
    nvml.forget()

    process.collect()
    process.advance(299)
    process.collect()
    before = nvml.calls("nvmlInitWithFlags")
    process.advance(2)
    sample = process.collect()

    assert (before, nvml.calls("nvmlInitWithFlags")) == (0, 1)
    assert sample["gpu:0.temperature_celsius"] == 40.0


def test_a_gpu_that_is_lost_at_the_start_has_its_place_and_comes_back(nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 3", "* 1 error 15")
    facts = process.discover()
    lost = process.collect()

    nvml.script("devices 3")
    back = process.collect()

    assert [device["uuid"][:4] for device in facts["devices"]] == ["GPU-", "", "GPU-"]
    assert _reasons(lost, "1") == {"gpu_lost"}
    assert back["gpu:1.utilization_percent"] == 10.0


def test_a_mig_instance_that_is_taken_away_is_lost_alone(nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 2", "mig 0 2")
    process.discover()

    nvml.script("devices 2", "mig 0 1")
    sample = process.collect()

    assert sample["gpu:0:1.memory_used_bytes"] == "gpu_lost"
    assert isinstance(sample["gpu:0:0.memory_used_bytes"], float)


def test_nvml_that_went_is_opened_again_and_the_metrics_stay(nvml: StandIn, own_process: GpuProcess) -> None:
    """As after a daemon-reload in a container: "Unknown Error" until NVML is opened anew."""
    nvml.script("devices 2")
    own_process.discover()
    healthy = own_process.collect()

    nvml.script("devices 2", "broken_sessions 1")
    gone = own_process.collect()
    own_process.advance(0.9)
    still_gone = own_process.collect()
    own_process.advance(0.2)
    back = own_process.collect()

    assert gone.keys() == healthy.keys()
    assert _reasons(gone, "0") == _reasons(still_gone, "1") == {"error"}
    assert of_device(back, "0") == of_device(healthy, "0")
    assert of_device(back, "1") == of_device(healthy, "1")


@pytest.mark.parametrize("code", [1, 9, 18, 999])
def test_attempts_to_open_nvml_back_off_from_one_second_to_thirty(
    code: int, nvml: StandIn, process: GpuProcess
) -> None:
    nvml.script("devices 1")
    process.discover()
    nvml.script("devices 1", f"* * error {code}")

    attempts = _attempts(nvml, process, seconds=100)
    nvml.script("devices 1")
    process.advance(30)
    back = process.collect()

    assert attempts == [1, 3, 7, 15, 31, 61, 91]
    assert back["gpu:0.temperature_celsius"] == 40.0


def test_the_second_outage_starts_with_a_short_delay_again(nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 1")
    process.discover()
    nvml.script("devices 1", "* * error 999")
    _attempts(nvml, process, seconds=20)
    nvml.script("devices 1")
    process.advance(30)
    process.collect()

    nvml.script("devices 1", "* * error 999")

    assert _attempts(nvml, process, seconds=5) == [1, 3]


def test_nvml_is_opened_again_beside_a_call_that_hangs(nvml: StandIn, own_process: GpuProcess) -> None:
    """It must not be closed under the call, but a driver that lost its sessions can be opened on top."""
    nvml.script("devices 2", "nvmlDeviceGetPowerUsage 1 hang")
    own_process.discover(timeout_seconds=0.5)
    own_process.collect()
    nvml.script("devices 2", "* 0 error 1", "nvmlDeviceGetPowerUsage 1 hang")
    own_process.collect()
    nvml.forget()

    own_process.advance(1)
    own_process.collect()

    assert nvml.calls("nvmlShutdown") == 0
    assert nvml.calls("nvmlInitWithFlags") == 1


def test_opening_again_that_hangs_makes_all_unknown_and_is_waited_for(nvml: StandIn, own_process: GpuProcess) -> None:
    nvml.script("devices 1")
    own_process.discover(timeout_seconds=0.5)
    nvml.script("devices 1", "* * error 999", "nvmlInitWithFlags * hang")
    own_process.collect()
    own_process.advance(1)

    assert set(own_process.collect().values()) == {"timeout"}
    nvml.script("devices 1")
    assert _until(own_process, "gpu:0.temperature_celsius", 40.0)


def test_without_a_driver_at_the_start_there_are_no_devices_and_a_reason(nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 8", "nvmlInitWithFlags * error 9")

    facts = process.discover()

    assert facts["devices"] == []
    assert "Driver Not Loaded" in facts["unavailable"]
    assert "nvidia-smi" in facts["unavailable"]
    assert process.collect() == {}


def test_a_driver_that_hangs_at_the_start_does_not_hang_us(nvml: StandIn, own_process: GpuProcess) -> None:
    nvml.script("devices 8", "nvmlInitWithFlags * hang")

    facts = own_process.discover(open_timeout_seconds=0.2)

    assert facts["devices"] == []
    assert "0.2 s" in facts["unavailable"]
    assert own_process.end() == 0


def test_no_gpu_is_said(nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 0")

    assert process.discover()["unavailable"] == "NVML finds no GPU"


def test_an_unknown_device_is_refused_with_the_list_of_those_that_are_here(nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 2")

    with pytest.raises(RemoteError, match=r"ConfigError: gpus='0,7'.*no device is called '7'.*1 = GPU-000000a1"):
        process.discover(gpus="0,7")


def test_without_nvml_chosen_gpus_are_not_checked() -> None:
    """A missing driver must not take the other readings with it."""
    with gpu_process({}) as process:
        facts = process.discover(gpus="0,7", library="/nonexistent/libnvidia-ml.so.1")

    assert facts["devices"] == []
    assert "no NVIDIA driver here" in facts["unavailable"]


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a driver")
def test_a_machine_without_nvml_has_no_devices_and_a_reason() -> None:
    with gpu_process({}) as process:
        facts = process.discover()
        sample = process.collect()

    assert facts["devices"] == []
    assert "no NVIDIA driver here" in facts["unavailable"]
    assert sample == {}


def test_a_library_can_be_named_by_its_path(nvml: StandIn) -> None:
    environ = {key: value for key, value in nvml.environ.items() if key != "LD_LIBRARY_PATH"}
    nvml.script("devices 2")

    with gpu_process(environ) as process:
        facts = process.discover(library=str(nvml.library))

    assert len(facts["devices"]) == 2


def _reasons(sample: Sample, instance: str) -> set[float | str]:
    return set(of_device(sample, instance).values())


def _until(process: GpuProcess, name: str, value: float) -> bool:
    """Collect until *name* reads *value*; a call that was let go comes back when its thread runs."""
    return any(process.collect()[name] == value for _ in range(2000))


def _attempts(nvml: StandIn, process: GpuProcess, *, seconds: int) -> list[int]:
    """Collect once a second, and return the seconds at which NVML was opened."""
    process.collect()
    attempts = []
    for second in range(1, seconds + 1):
        nvml.forget()
        process.advance(1)
        process.collect()
        if nvml.calls("nvmlInitWithFlags"):
            attempts.append(second)
    return attempts


BINDINGS = {
    "an old one takes other arguments": "class NVMLError(Exception): pass\ndef nvmlInit(): raise TypeError('flags')\n",
    "a deprecated one where warnings are errors": "raise FutureWarning('The pynvml package is deprecated')\n",
    "one that is another module": "",
}


@pytest.mark.parametrize("binding", BINDINGS.values(), ids=BINDINGS)
def test_whatever_a_binding_raises_costs_the_gpus_and_names_what_is_in_the_way(
    nvml: StandIn, tmp_path: Path, binding: str
) -> None:
    package = tmp_path / "pynvml"
    package.mkdir()
    (package / "__init__.py").write_text(binding)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from shm_monitor.collectors.gpu.collector import discover_gpu\n"
        "print(discover_gpu().facts['unavailable'])"
    )
    environ = child_environment(**nvml.environ)
    done = subprocess.run(
        [*PYTHON, "-c", code, str(tmp_path)], env=environ, capture_output=True, text=True, check=False
    )

    assert done.stderr == ""
    assert f"`import pynvml` finds {package / '__init__.py'}, which is not nvidia-ml-py; try: rename it" in done.stdout


def test_the_order_of_cuda_devices_is_that_of_the_environment(nvml: StandIn) -> None:
    """A sampler that obeys CUDA_VISIBLE_DEVICES=0 measured the fastest device, whatever CUDA_DEVICE_ORDER said."""
    nvml.script("devices 2", "name 1 NVIDIA T400", "pci 0 00000000:90:00.0", "pci 1 00000000:10:00.0")
    code = (
        "from shm_monitor.config.resource import ResourceConfig\n"
        "from shm_monitor.sampler.loop import sources_for\n"
        "from shm_monitor.supervision.handshake import Order\n"
        "config = ResourceConfig(only_visible_gpus=True, collectors=('memory', 'gpu'))\n"
        "gpu = sources_for(Order(config=config, owner_pid=1))[-1].collector\n"
        "print([device['index'] for device in gpu.facts['devices']], flush=True)\n"
        "import os; os._exit(0)"
    )
    environ = child_environment(**nvml.environ, CUDA_VISIBLE_DEVICES="0", CUDA_DEVICE_ORDER="PCI_BUS_ID")
    done = subprocess.run([*PYTHON, "-c", code], env=environ, capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("[1]\n", "")
