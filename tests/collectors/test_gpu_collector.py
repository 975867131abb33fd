"""GpuCollector against the stand-in for libnvidia-ml: what is read, and that one fault costs one field."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shm_monitor.collectors.gpu.reader import METRICS
from tests.support.nvml_library import GpuProcess, Sample, StandIn, gpu_process, of_device

pytestmark = pytest.mark.processes

GIB = 2**30
CODES = (*range(1, 31), 999)
REASONS = {
    3: "not_supported",
    4: "no_permission",
    10: "timeout",
    13: "not_supported",
    15: "gpu_lost",
    16: "gpu_lost",
}
FIELDS = {
    "nvmlDeviceGetUtilizationRates": ("utilization_percent",),
    "nvmlDeviceGetMemoryInfo_v2": ("memory_used_bytes", "memory_total_bytes", "memory_percent"),
    "nvmlDeviceGetTemperatureV": ("temperature_celsius",),
    "nvmlDeviceGetPowerUsage": ("power_watts",),
    "nvmlDeviceGetEnforcedPowerLimit": ("power_limit_watts",),
    "nvmlDeviceGetClockInfo": ("sm_clock_mhz", "memory_clock_mhz"),
    "nvmlDeviceGetCurrentClocksEventReasons": ("throttle_reasons",),
    "nvmlDeviceGetTotalEccErrors": ("ecc_corrected_count", "ecc_uncorrected_count"),
    "nvmlDeviceGetPcieThroughput": ("pcie_receive_bytes_per_second", "pcie_transmit_bytes_per_second"),
}
HAS_OLDER = {
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetCurrentClocksEventReasons",
}
LONG_CALLS = ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetTotalEccErrors")
PROCESS_FIELDS = tuple(name for name in (metric.field for metric in METRICS) if name.startswith(("process", "unattr")))


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    return StandIn.create(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="module")
def process(nvml: StandIn) -> Iterator[GpuProcess]:
    with gpu_process(nvml.environ) as process:
        yield process


def test_a_device_has_every_field_of_the_table(nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 3")

    facts = process.discover()
    sample = of_device(process.collect(), "2")

    assert facts["driver"] == "570.00.01"
    assert facts["unavailable"] == ""
    assert facts["devices"][2] == {
        "instance": "2",
        "index": 2,
        "uuid": "GPU-000000a2-0000-4000-8000-000000000002",
        "name": "NVIDIA Stand-in",
        "memory_kind": "dedicated",
        "mig": False,
        "split": False,
    }
    assert {name: value for name, value in sample.items() if not name.startswith("process_")} == {
        "utilization_percent": 20.0,
        "memory_used_bytes": 3.0 * GIB,
        "memory_total_bytes": 80.0 * GIB,
        "memory_percent": 3.75,
        "temperature_celsius": 42.0,
        "power_watts": 102.0,
        "power_limit_watts": 400.0,
        "sm_clock_mhz": 1410.0,
        "memory_clock_mhz": 1593.0,
        "throttle_reasons": 4.0,
        "ecc_corrected_count": 2.0,
        "ecc_uncorrected_count": 0.0,
        "pcie_receive_bytes_per_second": 2e6,
        "pcie_transmit_bytes_per_second": 1e6,
        "processes_count": 0.0,
        "unattributed_memory_bytes": 0.0,
    }


def test_each_device_says_how_long_its_reading_took(nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 2", "nvmlDeviceGetPcieThroughput 1 slow 20")
    process.discover()

    took = process.collect()["gpu:1.read_seconds"]

    assert isinstance(took, float)
    assert took >= 0.040


def test_readings_follow_the_device(nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 1", "nvmlDeviceGetUtilizationRates 0 series 10 90 35")
    process.discover()

    seen = [process.collect()["gpu:0.utilization_percent"] for _ in range(4)]

    assert seen == [10.0, 90.0, 35.0, 35.0]


@pytest.mark.parametrize("call", FIELDS)
def test_an_error_of_one_call_costs_its_own_fields_only(call: str, nvml: StandIn, process: GpuProcess) -> None:
    """Eight devices; every code of NVML on this call of device 3; all else reads as before."""
    nvml.script("devices 8")
    process.discover()
    healthy = process.collect()

    for code in CODES:
        nvml.script("devices 8", f"{call} 3 error {code}")
        sample = process.collect()
        broken = of_device(sample, "3")

        assert _without_device(sample, "3") == _without_device(healthy, "3")
        assert _without(broken, FIELDS[call]) == _without(of_device(healthy, "3"), FIELDS[call])
        if code in (13, 25) and call in HAS_OLDER:
            assert all(isinstance(broken[field], float) for field in FIELDS[call])
        else:
            unified = code == 3 and call == "nvmlDeviceGetMemoryInfo_v2"
            reason = "unified_memory" if unified else REASONS.get(code, "error")
            assert {broken[field] for field in FIELDS[call]} == {reason}


@pytest.mark.parametrize("kind", ["Compute", "Graphics"])
def test_an_error_of_a_process_list_costs_the_processes_only(kind: str, nvml: StandIn, process: GpuProcess) -> None:
    """A kind of process that a GPU does not have is an empty list, any other error makes the processes unknown."""
    nvml.script("devices 8")
    process.discover()
    healthy = process.collect()

    for code in CODES:
        nvml.script("devices 8", f"nvmlDeviceGet{kind}RunningProcesses_v3 3 error {code}")
        sample = process.collect()
        broken = of_device(sample, "3")

        assert _without_device(sample, "3") == _without_device(healthy, "3")
        assert _without(broken, PROCESS_FIELDS) == _without(of_device(healthy, "3"), PROCESS_FIELDS)
        if code in (3, 13, 25):  # at 25 the version before is asked, and the stand-in does not have it
            assert broken["processes_count"] == 0.0
        else:
            assert {broken[field] for field in PROCESS_FIELDS} == {REASONS.get(code, "error")}


@pytest.mark.parametrize(
    "call",
    [
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetName",
        "nvmlDeviceGetPciInfo_v3",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetHandleByIndex_v2",
        "nvmlDeviceGetHandleByUUID",
    ],
)
def test_an_error_while_finding_a_device_costs_no_other(call: str, nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 8")
    process.discover()
    healthy = process.collect()

    for code in CODES:
        nvml.script("devices 8", f"{call} 3 error {code}")
        process.discover()
        sample = process.collect()

        assert _without_device(sample, "3") == _without_device(healthy, "3")
        assert sample.keys() == healthy.keys()


@pytest.mark.parametrize("sentinel", [2**32 - 1, 2147483634])
def test_a_sentinel_is_no_reading(sentinel: int, nvml: StandIn, process: GpuProcess) -> None:
    """NVML_VALUE_NOT_AVAILABLE and a blank of DCGM in 32 bits, on every call."""
    nvml.script("devices 1", *(f"{call} 0 value {sentinel} {sentinel} 0" for call in FIELDS))
    process.discover()

    sample = of_device(process.collect(), "0")

    assert {sample[field] for fields in FIELDS.values() for field in fields} == {"not_supported"}


@pytest.mark.parametrize("sentinel", [2**64 - 1, 2**63 - 1, 9223372036854775794])
@pytest.mark.parametrize("call", LONG_CALLS)
def test_a_sentinel_of_64_bits_is_no_reading(call: str, sentinel: int, nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 1", f"{call} 0 value {sentinel} {sentinel} 0")
    process.discover()

    sample = process.collect()

    assert {sample[f"gpu:0.{field}"] for field in FIELDS[call]} == {"not_supported"}


def test_a_sentinel_for_used_memory_leaves_the_total(nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 1", "nvmlDeviceGetMemoryInfo_v2 0 value 9223372036854775794 85899345920")
    process.discover()

    sample = process.collect()

    assert sample["gpu:0.memory_used_bytes"] == sample["gpu:0.memory_percent"] == "not_supported"
    assert sample["gpu:0.memory_total_bytes"] == 80.0 * GIB


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ("nvmlDeviceGetUtilizationRates 0 value 101", "utilization_percent"),
        ("nvmlDeviceGetTemperatureV 0 value 5000", "temperature_celsius"),
        ("nvmlDeviceGetPowerUsage 0 value 4000000000", "power_watts"),
        ("nvmlDeviceGetMemoryInfo_v2 0 value 9000000000000000000 85899345920", "memory_used_bytes"),
    ],
)
def test_a_number_that_no_gpu_has_is_an_error(rule: str, field: str, nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 1", rule)
    process.discover()

    assert process.collect()[f"gpu:0.{field}"] == "error"


def test_a_temperature_below_zero_is_a_reading(nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 1", "nvmlDeviceGetTemperatureV 0 value -12")
    process.discover()

    assert process.collect()["gpu:0.temperature_celsius"] == -12.0


def test_memory_of_an_old_driver_is_read_by_the_old_call(nvml: StandIn, process: GpuProcess) -> None:
    """Before driver 510 there is no version 2, whose used leaves out what the driver reserves."""
    nvml.script("devices 1", "nvmlDeviceGetMemoryInfo_v2 0 error 13")
    process.discover()

    assert process.collect()["gpu:0.memory_used_bytes"] == 1.5 * GIB


@pytest.mark.parametrize("rule", ["error 3", "value 0 0 0"])
def test_a_gpu_on_the_memory_of_the_host_says_so(rule: str, nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 2", f"nvmlDeviceGetMemoryInfo_v2 1 {rule}")

    facts = process.discover()
    sample = process.collect()

    assert [device["memory_kind"] for device in facts["devices"]] == ["dedicated", "unified"]
    assert {sample[f"gpu:1.{field}"] for field in FIELDS["nvmlDeviceGetMemoryInfo_v2"]} == {"unified_memory"}
    assert sample["gpu:1.utilization_percent"] == 10.0


def test_mig_instances_are_devices_with_their_own_memory(nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 2", "mig 0 2", "process 0:1 4711 1000")

    facts = process.discover()
    sample = process.collect()

    assert [device["instance"] for device in facts["devices"]] == ["0", "0:0", "0:1", "1"]
    assert [device["mig"] for device in facts["devices"]] == [False, True, True, False]
    assert [device["split"] for device in facts["devices"]] == [True, False, False, False]
    assert facts["devices"][2]["uuid"].startswith("MIG-")
    assert sample["gpu:0:1.memory_used_bytes"] == 0.5 * GIB
    assert sample["gpu:0:1.memory_total_bytes"] == 10.0 * GIB
    assert sample["gpu:0:1.processes_count"] == 1.0
    assert sample["gpu:0:0.processes_count"] == 0.0


def test_utilization_under_mig_is_unknown_even_where_the_driver_says_zero(nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 2", "mig 0 1", "nvmlDeviceGetUtilizationRates 0 value 0 0")
    process.discover()
    nvml.forget()

    sample = process.collect()

    assert sample["gpu:0.utilization_percent"] == sample["gpu:0:0.utilization_percent"] == "mig"
    assert sample["gpu:1.utilization_percent"] == 10.0
    assert nvml.calls("nvmlDeviceGetUtilizationRates", "0") == 0


def test_what_only_the_whole_gpu_has_is_unknown_for_its_instances(nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 1", "mig 0 1")
    process.discover()

    sample = process.collect()

    assert sample["gpu:0:0.temperature_celsius"] == sample["gpu:0:0.power_watts"] == "mig"
    assert sample["gpu:0.temperature_celsius"] == 40.0


def test_devices_are_chosen_by_index_and_uuid(nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 8")

    facts = process.discover(gpus="5,GPU-000000a2")
    sample = process.collect()

    assert [device["index"] for device in facts["devices"]] == [2, 5]
    assert sample["gpu:5.utilization_percent"] == 50.0
    assert "gpu:0.utilization_percent" not in sample


def test_no_device_chosen_is_said(nvml: StandIn, process: GpuProcess) -> None:
    nvml.script("devices 8")

    facts = process.discover(cuda_visible_devices="")

    assert facts["devices"] == []
    assert facts["unavailable"] == "none of the GPUs is chosen"
    assert process.collect() == {}


def _without(fields: Sample, left_out: tuple[str, ...]) -> Sample:
    return {name: value for name, value in fields.items() if name not in left_out}


def _without_device(sample: Sample, instance: str) -> Sample:
    return {
        name: value
        for name, value in sample.items()
        if not name.startswith(f"gpu:{instance}.") and not name.endswith("read_seconds")
    }
