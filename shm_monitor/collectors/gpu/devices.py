"""Which GPUs there are: what NVML lists, MIG instances included."""

from __future__ import annotations

from typing import NamedTuple

from shm_monitor.collectors.gpu.fields import memory_of
from shm_monitor.collectors.gpu.nvml import (
    GPU_IS_LOST,
    GPU_NOT_FOUND,
    NOT_FOUND,
    NOT_SUPPORTED,
    Handle,
    Nvml,
    NvmlFault,
)

_NOT_HERE = frozenset({NOT_FOUND, GPU_NOT_FOUND})


class Device(NamedTuple):
    """One GPU, or one MIG instance of one.

    Args:
        instance: NVML's index, ``"0"``; of a MIG instance ``"0:1"``, its place within the GPU behind it.
        nvml_index: NVML's index of the GPU.
        uuid: "" when the GPU was lost before it could be asked.
        name: as NVML spells it, else "".
        pci: bus id, ``00000000:07:00.0``; "" of a MIG instance.
        mig: it is an instance.
        split: it is a GPU in MIG mode, with its instances as devices of their own.
        unified: it has no memory but that of the host.
        mig_place: the place behind the colon; -1 of a whole GPU.
        mig_ids: GPU instance and compute instance, as drivers before 470 name an instance.
    """

    instance: str
    nvml_index: int
    uuid: str = ""
    name: str = ""
    pci: str = ""
    mig: bool = False
    split: bool = False
    unified: bool = False
    mig_place: int = -1
    mig_ids: tuple[int, int] = (-1, -1)

    def handle(self, nvml: Nvml) -> Handle:
        """Look the device up: by UUID, since an index can mean another GPU after a loss.

        Raises:
            NvmlFault: GPU_IS_LOST when NVML does not find it, or NVML's own error.
        """
        try:
            return self._lookup(nvml)
        except NvmlFault as fault:
            if fault.code in _NOT_HERE:
                raise NvmlFault(GPU_IS_LOST, fault.call, str(fault)) from fault
            raise

    def _lookup(self, nvml: Nvml) -> Handle:
        if self.uuid:
            return Handle(nvml.call("nvmlDeviceGetHandleByUUID", self.uuid))
        whole = Handle(nvml.call("nvmlDeviceGetHandleByIndex", self.nvml_index))
        return Handle(nvml.call("nvmlDeviceGetMigDeviceHandleByIndex", whole, self.mig_place)) if self.mig else whole

    def facts(self) -> dict[str, object]:
        """Return what a segment says about the device."""
        return {
            "instance": self.instance,
            "index": self.nvml_index,
            "uuid": self.uuid,
            "name": self.name,
            "memory_kind": "unified" if self.unified else "dedicated",
            "mig": self.mig,
            "split": self.split,
        }


def list_devices(nvml: Nvml) -> list[Device]:
    """Return every GPU that NVML counts, also one that is lost now, each followed by its MIG instances.

    Raises:
        NvmlFault: NVML does not even count.
    """
    return [device for index in range(nvml.call("nvmlDeviceGetCount")) for device in _gpu(nvml, index)]


def _gpu(nvml: Nvml, index: int) -> list[Device]:
    device = Device(instance=str(index), nvml_index=index)
    try:
        handle = Handle(nvml.call("nvmlDeviceGetHandleByIndex", index))
    except NvmlFault:
        return [device]  # it may come back
    split = _is_split(nvml, handle)
    device = device._replace(
        uuid=_text(nvml, "nvmlDeviceGetUUID", handle),
        name=_text(nvml, "nvmlDeviceGetName", handle),
        pci=_pci(nvml, handle),
        split=split,
        unified=not split and _is_unified(nvml, handle),
    )
    return [device, *(_instances(nvml, handle, index) if split else ())]


def _instances(nvml: Nvml, handle: Handle, index: int) -> list[Device]:
    return [
        device
        for place in range(_number(nvml, "nvmlDeviceGetMaxMigDeviceCount", handle, missing=0))
        if (device := _instance(nvml, handle, index, place)) is not None
    ]


def _instance(nvml: Nvml, whole: Handle, index: int, place: int) -> Device | None:
    try:
        handle = Handle(nvml.call("nvmlDeviceGetMigDeviceHandleByIndex", whole, place))
    except NvmlFault:  # NOT_FOUND: the GPU is not cut into as many as it could be
        return None
    return Device(
        instance=f"{index}:{place}",
        nvml_index=index,
        uuid=_text(nvml, "nvmlDeviceGetUUID", handle),
        name=_text(nvml, "nvmlDeviceGetName", handle),
        mig=True,
        mig_place=place,
        mig_ids=(
            _number(nvml, "nvmlDeviceGetGpuInstanceId", handle, missing=-1),
            _number(nvml, "nvmlDeviceGetComputeInstanceId", handle, missing=-1),
        ),
    )


def _text(nvml: Nvml, function: str, handle: Handle) -> str:
    try:
        return str(nvml.call(function, handle))
    except NvmlFault:
        return ""


def _number(nvml: Nvml, function: str, handle: Handle, *, missing: int) -> int:
    try:
        return int(nvml.call(function, handle))
    except NvmlFault:
        return missing


def _pci(nvml: Nvml, handle: Handle) -> str:
    try:
        bus_id = nvml.call("nvmlDeviceGetPciInfo_v3", handle).busId
    except NvmlFault:
        return ""
    return bus_id.decode(errors="replace") if isinstance(bus_id, bytes) else str(bus_id)


def _is_split(nvml: Nvml, handle: Handle) -> bool:
    try:
        return bool(nvml.call("nvmlDeviceGetMigMode", handle)[0])
    except NvmlFault:  # most GPUs cannot be split
        return False


def _is_unified(nvml: Nvml, handle: Handle) -> bool:
    try:
        return memory_of(nvml, handle)[1] == 0
    except NvmlFault as fault:
        return fault.code == NOT_SUPPORTED
