"""Which GPUs are watched: ``gpus=`` and ``CUDA_VISIBLE_DEVICES``, over a machine written down as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm_monitor.collectors.gpu.choice import ask_libcuda, choose, choose_visible
from shm_monitor.collectors.gpu.devices import Device
from shm_monitor.errors import ConfigError
from tests.support.nvml_library import library_folder


def gpu(index: int, uuid: str, *, pci: str = "", name: str = "NVIDIA H200", split: bool = False) -> Device:
    return Device(str(index), index, uuid, name, pci or f"00000000:{index + 1:02X}:00.0", split=split)


def mig(index: int, place: int, uuid: str) -> Device:
    return Device(f"{index}:{place}", index, uuid, "MIG 1g", mig=True, mig_place=place, mig_ids=(7 + place, 0))


FOUR = [gpu(0, "GPU-aa10"), gpu(1, "GPU-aa20"), gpu(2, "GPU-bb30"), gpu(3, "GPU-cc40")]
SPLIT = [gpu(0, "GPU-aa10", split=True), mig(0, 0, "MIG-11"), mig(0, 1, "MIG-12"), gpu(1, "GPU-bb20")]
MIXED = [gpu(0, "GPU-aa10", name="NVIDIA T1000"), gpu(1, "GPU-bb20", name="NVIDIA RTX 6000")]


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ("all", ["0", "1", "2", "3"]),
        ("none", []),
        ("", []),
        ([], []),
        ("0", ["0"]),
        ("3,1", ["1", "3"]),
        (" 3 , 1 ", ["1", "3"]),
        ([2, "GPU-cc40"], ["2", "3"]),
        ("1,1", ["1"]),
        ("GPU-aa2", ["1"]),
        ("gpu-BB", ["2"]),
    ],
)
def test_gpus_are_named_by_index_or_uuid(gpus: str | list[str | int], expected: list[str]) -> None:
    assert [device.instance for device in choose(FOUR, gpus)] == expected


@pytest.mark.parametrize(
    ("gpus", "what"),
    [
        ("4", "no device is called '4'"),
        ("-2", "no device is called '-2'"),
        ("0,GPU-dd", "no device is called 'GPU-dd'"),
        ("0,", "no device is called ''"),
        ("GPU-aa", "'GPU-aa' is the beginning of several UUIDs"),
        ("0:1", "no device is called '0:1'"),
        ("aa10", "no device is called 'aa10'"),
    ],
)
def test_a_name_that_is_no_device_is_refused_and_the_devices_are_listed(gpus: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        choose(FOUR, gpus)

    assert all(device.uuid in str(caught.value) for device in FOUR)


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ("0", ["0", "0:0", "0:1"]),
        ("0:1", ["0:1"]),
        ("MIG-12,1", ["0:1", "1"]),
        ("MIG-GPU-aa10/8/0", ["0:1"]),
    ],
)
def test_a_mig_instance_is_named_alone_and_comes_with_its_gpu(gpus: str, expected: list[str]) -> None:
    assert [device.instance for device in choose(SPLIT, gpus)] == expected


def test_a_device_without_a_uuid_has_no_empty_name() -> None:
    """One that was lost at the start must not be what a stray comma means."""
    with pytest.raises(ConfigError):
        choose([gpu(0, "")], "0,")


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("", []),
        ("-1", []),
        ("void", []),
        ("NoDevFiles", []),
        ("none", []),
        ("all", ["0", "1", "2", "3"]),
        ("2,0", ["0", "2"]),
        ("0,2,-1,1", ["0", "2"]),
        ("0,9,1", ["0"]),
        ("0,,1", ["0"]),
        ("GPU-bb30", ["2"]),
        ("GPU-cc,GPU-aa1", ["0", "3"]),
        ("GPU-aa,GPU-cc", []),
        ("1,nonsense", ["1"]),
        ("0:0", []),
    ],
)
def test_visible_devices_mean_what_they_mean_to_cuda(visible: str, expected: list[str]) -> None:
    """A name that means nothing hides itself and all after it: the programming guide's example is 0,2,-1,1."""
    assert [device.instance for device in choose_visible(FOUR, visible)] == expected


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("MIG-11", ["0:0"]), ("MIG-GPU-aa10/8/0", ["0:1"]), ("MIG-GPU-aa10/9/0", []), ("1", ["1"])],
)
def test_visible_mig_instances_are_found(visible: str, expected: list[str]) -> None:
    assert [device.instance for device in choose_visible(SPLIT, visible)] == expected


@pytest.mark.parametrize("order", ["PCI_BUS_ID", "FASTEST_FIRST"])
def test_gpus_of_one_kind_are_counted_along_the_bus(order: str) -> None:
    """NVML's order need not be that of the bus; of equal GPUs CUDA's is, whatever it is told."""
    swapped = [gpu(0, "GPU-aa", pci="00000000:90:00.0"), gpu(1, "GPU-bb", pci="00000000:10:00.0")]

    assert [device.uuid for device in choose_visible(swapped, "0", device_order=order)] == ["GPU-bb"]


def test_gpus_of_several_kinds_are_counted_as_cuda_says_by_uuid() -> None:
    chosen = choose_visible(MIXED, "0", ask_cuda=lambda: ["GPU-bb20", "GPU-aa10"])

    assert [device.instance for device in chosen] == ["1"]


def test_the_bus_order_needs_no_question_to_cuda() -> None:
    chosen = choose_visible(MIXED, "0", device_order="PCI_BUS_ID", ask_cuda=_no_cuda)

    assert [device.instance for device in chosen] == ["0"]


def test_uuids_need_no_question_to_cuda() -> None:
    assert [device.instance for device in choose_visible(MIXED, "GPU-bb20", ask_cuda=_no_cuda)] == ["1"]


def test_indices_without_an_order_are_refused_rather_than_guessed() -> None:
    with pytest.raises(ConfigError, match="set CUDA_DEVICE_ORDER=PCI_BUS_ID; here are: 0 = GPU-aa10"):
        choose_visible(MIXED, "0", ask_cuda=_no_cuda)


@pytest.mark.processes
def test_libcuda_is_asked_in_a_process_of_its_own(cuda: pytest.MonkeyPatch) -> None:
    """The variable that hides devices must not hide them from the question."""
    cuda.setenv("CUDA_STAND_IN_ORDER", "1 0")
    cuda.setenv("CUDA_VISIBLE_DEVICES", "1")

    assert ask_libcuda() == ["GPU-000000a1-0000-4000-8000-000000000001", "GPU-000000a0-0000-4000-8000-000000000000"]


@pytest.mark.processes
def test_a_libcuda_that_fails_says_how(cuda: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="CUDA error 100"):
        ask_libcuda()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which new processes load the stand-in for libcuda."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library_folder()))
    return monkeypatch


names = st.sampled_from(
    ["0", "1", "2", "3", "4", "-1", "", "GPU-aa", "GPU-aa10", "GPU-bb", "x", "void", "0:0", "MIG-1"]
)


@given(st.lists(names, max_size=6), names)
def test_more_names_never_hide_a_device(visible: list[str], more: str) -> None:
    few = choose_visible(FOUR, ",".join(visible)) if visible else []
    many = choose_visible(FOUR, ",".join([*visible, more]))

    assert {device.instance for device in few} <= {device.instance for device in many}


def _no_cuda() -> list[str]:
    raise OSError("libcuda.so.1: cannot open shared object file")
