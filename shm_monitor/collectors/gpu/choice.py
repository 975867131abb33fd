"""Which of the GPUs to watch: ``gpus=`` in NVML's words, ``CUDA_VISIBLE_DEVICES`` in CUDA's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence

from shm_monitor.collectors.gpu.devices import Device
from shm_monitor.errors import ConfigError
from shm_monitor.interpreter import interpreter

_NOTHING = frozenset({"", "none", "void", "nodevfiles", "-1"})  # "void": NVIDIA's runtime; "NoDevFiles": PBS and Slurm
_EVERYTHING = "all"

# Run apart: cuInit would stay in the sampler for good, and obeys the variables only at its first call.
_ASK_CUDA = """
import ctypes, uuid
cuda = ctypes.CDLL("libcuda.so.1")
def check(code):
    if code: raise SystemExit(f"CUDA error {code}")
check(cuda.cuInit(0))
count = ctypes.c_int()
check(cuda.cuDeviceGetCount(ctypes.byref(count)))
for ordinal in range(count.value):
    device, raw = ctypes.c_int(), (ctypes.c_ubyte * 16)()
    check(cuda.cuDeviceGet(ctypes.byref(device), ordinal))
    check(cuda.cuDeviceGetUuid(ctypes.byref(raw), device))
    print(f"GPU-{uuid.UUID(bytes=bytes(raw))}")
"""


def choose(devices: Sequence[Device], gpus: str | Sequence[str | int]) -> list[Device]:
    """Return the devices that *gpus* names, in NVML's order; a GPU brings its MIG instances along.

    Each name is an index (``0``), a MIG instance (``0:1``), or a UUID or enough of its beginning; ``all`` and ``none``
    stand alone.

    Raises:
        ConfigError: a name that no device, or more than one, has; the message lists the devices.
    """
    names = _names(gpus)
    if len(names) == 1 and names[0].lower() == _EVERYTHING:
        return list(devices)
    if len(names) == 1 and names[0].lower() in _NOTHING:
        return []
    chosen: set[str] = set()
    for name in names:
        found = _named(devices, name)
        if len(found) != 1:
            what = f"no device is called {name!r}" if not found else f"{name!r} is the beginning of several UUIDs"
            raise ConfigError("gpus", gpus, "argument", f"{what}; here are: {_listing(devices)}")
        chosen.update(device.instance for device in _with_instances(devices, found[0]))
    return [device for device in devices if device.instance in chosen]


def choose_visible(
    devices: Sequence[Device],
    visible: str,
    *,
    device_order: str = "FASTEST_FIRST",
    ask_cuda: Callable[[], Sequence[str]] | None = None,
) -> list[Device]:
    """Return the devices that a CUDA program with ``CUDA_VISIBLE_DEVICES`` = *visible* sees, in NVML's order.

    As in CUDA, the first name that means nothing hides itself and all after it, and is no error. Indices follow CUDA's
    order: the PCI bus with *device_order* ``PCI_BUS_ID`` or GPUs of one kind, else what *ask_cuda* answers
    (UUIDs in CUDA's order; by default a process apart asks libcuda: 0.2 to 2 s, only then).
    Source: CUDA C++ Programming Guide, CUDA Environment Variables.

    Raises:
        ConfigError: indices among GPUs of several kinds, and CUDA does not say which is first.
    """
    names = _names(visible)
    if len(names) == 1 and names[0].lower() == _EVERYTHING:
        return list(devices)
    in_order = _in_cuda_order(devices, visible, device_order, ask_cuda) if any(map(_is_index, names)) else []
    chosen: set[str] = set()
    for name in names:
        found = _visible(devices, in_order, name)
        if not found:
            break
        chosen.update(device.instance for device in found)
    return [device for device in devices if device.instance in chosen]


def _names(value: str | Sequence[str | int]) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else [str(part) for part in value]
    return [part.strip() for part in parts] or [""]


def _is_index(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _named(devices: Sequence[Device], name: str) -> list[Device]:
    exact = [device for device in devices if name and name in (device.instance, device.uuid)]
    if exact or not name.upper().startswith(("GPU-", "MIG-")):
        return exact
    return _legacy_instance(devices, name) or [
        device for device in devices if device.uuid.lower().startswith(name.lower())
    ]


def _legacy_instance(devices: Sequence[Device], name: str) -> list[Device]:
    """Return the instance that drivers before 470 call ``MIG-GPU-<uuid>/<GPU instance>/<compute instance>``."""
    owner, *ids = name.removeprefix("MIG-").split("/")
    owners = {device.nvml_index for device in devices if device.uuid == owner}
    if len(ids) != 2 or not all(map(_is_index, ids)):
        return []
    wanted = (int(ids[0]), int(ids[1]))
    return [device for device in devices if device.mig and device.nvml_index in owners and device.mig_ids == wanted]


def _with_instances(devices: Sequence[Device], device: Device) -> list[Device]:
    if device.mig:
        return [device]
    return [other for other in devices if other.nvml_index == device.nvml_index]


def _visible(devices: Sequence[Device], in_order: Sequence[Device], name: str) -> list[Device]:
    if _is_index(name):
        place = int(name)
        return _with_instances(devices, in_order[place]) if place < len(in_order) else []
    found = [] if name in {device.instance for device in devices} else _named(devices, name)
    return _with_instances(devices, found[0]) if len(found) == 1 else []


def _in_cuda_order(
    devices: Sequence[Device], visible: str, device_order: str, ask_cuda: Callable[[], Sequence[str]] | None
) -> list[Device]:
    whole = [device for device in devices if not device.mig]
    if device_order == "PCI_BUS_ID" or len({device.name for device in whole}) <= 1:
        return sorted(whole, key=lambda device: (device.pci, device.nvml_index))
    try:
        uuids = (ask_cuda or ask_libcuda)()
    except OSError as error:
        why = f"indices among GPUs of several kinds need CUDA's order, which is not known ({error})"
        advice = "name UUIDs, or set CUDA_DEVICE_ORDER=PCI_BUS_ID"
        raise ConfigError(
            "CUDA_VISIBLE_DEVICES", visible, "environment", f"{why}; {advice}; here are: {_listing(devices)}"
        ) from error
    by_uuid = {device.uuid: device for device in whole}
    return [by_uuid[uuid] for uuid in uuids if uuid in by_uuid]


def ask_libcuda() -> list[str]:
    """Return the UUIDs of the GPUs in CUDA's own order (the fastest first).

    Raises:
        OSError: libcuda is not here, fails or does not answer in 30 s.
    """
    environ = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    environ["CUDA_DEVICE_ORDER"] = "FASTEST_FIRST"
    try:
        done = subprocess.run(
            [interpreter(), "-I", "-c", _ASK_CUDA],
            env=environ,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError("libcuda did not answer in 30 s") from error
    if done.returncode != 0:
        raise OSError((done.stderr.strip().splitlines() or ["libcuda failed"])[-1])
    return done.stdout.split()


def _listing(devices: Sequence[Device]) -> str:
    return ", ".join(f"{device.instance} = {device.uuid} ({device.name})" for device in devices) or "none"
