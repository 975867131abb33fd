"""Do our GPU readings agree with ``nvidia-smi`` on this machine, and what does a reading cost?

    python -m bench.gpu_check            # from the root of the repository; needs numpy and nvidia-ml-py
    python -m bench.gpu_check --json     # the same as data

nvidia-smi is asked while our collector reads on: a number agrees when it lies within what we read meanwhile, give or
take its resolution. With torch the comparison is made again with a known allocation and under a known load.
Exit status: 0 all agree, 1 something does not, 2 wrong arguments, 3 nothing to compare (no GPU, or no nvidia-smi).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import math
import os
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np

from bench.nvidia_smi import ask_nvidia_smi, number
from shm_monitor.collectors.gpu.collector import GpuCollector, discover_gpu
from shm_monitor.collectors.gpu.devices import list_devices
from shm_monitor.collectors.gpu.fields import CALLS
from shm_monitor.collectors.gpu.nvml import Nvml
from shm_monitor.collectors.gpu.processes import read_processes
from shm_monitor.schema import why_unknown
from shm_monitor.snapshot.throttle import throttle_names

MIB = 2**20
ALLOCATED_BYTES = 4 * 2**30

Sample = dict[str, float]


class Field(NamedTuple):
    """One of our fields and nvidia-smi's names for it, newest first; theirs times *scale* is in our unit."""

    ours: str
    theirs: tuple[str, ...]
    scale: float
    resolution: float


FIELDS = (
    Field("utilization_percent", ("utilization.gpu",), 1, 1),
    Field("memory_used_bytes", ("memory.used",), MIB, MIB),
    Field("memory_total_bytes", ("memory.total",), MIB, MIB),
    Field("temperature_celsius", ("temperature.gpu",), 1, 1),
    Field("power_watts", ("power.draw",), 1, 0.01),
    Field("power_limit_watts", ("enforced.power.limit",), 1, 0.01),
    Field("sm_clock_mhz", ("clocks.sm",), 1, 1),
    Field("memory_clock_mhz", ("clocks.mem",), 1, 1),
    Field("throttle_reasons", ("clocks_event_reasons.active", "clocks_throttle_reasons.active"), 1, 0),
    Field("ecc_corrected_count", ("ecc.errors.corrected.volatile.total",), 1, 0),
    Field("ecc_uncorrected_count", ("ecc.errors.uncorrected.volatile.total",), 1, 0),
)


class Row(NamedTuple):
    """One comparison: what we read while nvidia-smi ran, lowest and highest, and what it said (NaN: nothing)."""

    phase: str
    instance: str
    field: str
    lowest: float
    highest: float
    theirs: float
    agrees: bool


class Recorder:
    """Reads all devices over and over in a thread, and keeps what it read."""

    def __init__(self, collector: GpuCollector) -> None:
        self.samples: list[Sample] = []
        self._collector = collector
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        while len(self.samples) < 2:  # one from before the question, whenever it is asked
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        seen = len(self.samples)
        while len(self.samples) < seen + 2:  # and one that began after it was answered
            time.sleep(0.01)
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.005):
            self.samples.append(collect(self._collector))


def collect(collector: GpuCollector) -> Sample:
    """Return one sample by metric name."""
    out = np.empty(len(collector.metrics))
    collector.collect(out)
    return {metric.name: value for metric, value in zip(collector.metrics, out.tolist(), strict=True)}


def compare(phase: str, collector: GpuCollector, *, attempts: int) -> list[Row]:
    """Return a row per device and field; one that disagrees has disagreed at every attempt.

    nvidia-smi and we look at different moments; what really differs, differs every time.
    """
    rows: dict[tuple[str, str], Row] = {}
    for _ in range(attempts):
        with Recorder(collector) as recorder:
            theirs = ask_nvidia_smi(("index", *(name for field in FIELDS for name in field.theirs)))
        for row in _rows(phase, recorder.samples, theirs):
            key = (row.instance, row.field)
            if key not in rows or not rows[key].agrees:
                rows[key] = row
        if all(row.agrees for row in rows.values()):
            break
    return list(rows.values())


def _rows(phase: str, samples: Sequence[Sample], theirs: dict[str, list[str]]) -> Iterator[Row]:
    for place, instance in enumerate(theirs["index"]):
        for field in FIELDS:
            word = next((theirs[name][place] for name in field.theirs if name in theirs), "")
            ours = [sample.get(f"gpu:{instance}.{field.ours}", math.nan) for sample in samples]
            known = [value for value in ours if not math.isnan(value)]
            said = number(word) * field.scale
            lowest, highest = (min(known), max(known)) if known else (math.nan, math.nan)
            both_unknown = not known and math.isnan(said)
            within = lowest - field.resolution <= said <= highest + field.resolution
            yield Row(phase, instance, field.ours, lowest, highest, said, both_unknown or within)


def cost(collector: GpuCollector, *, samples: int = 20) -> dict[str, Any]:
    """Return milliseconds: of a sample (wall, CPU), of each device's reading, and of each call of the first GPU."""
    wall, cpu = [], []
    devices: dict[str, list[float]] = {}
    for _ in range(samples):
        started, used = time.perf_counter(), time.process_time()
        sample = collect(collector)
        wall.append(1e3 * (time.perf_counter() - started))
        cpu.append(1e3 * (time.process_time() - used))
        for name, value in sample.items():
            if name.endswith("read_seconds"):
                devices.setdefault(name, []).append(1e3 * value)
    return {
        "sample_wall_ms": statistics.median(wall),
        "sample_cpu_ms": statistics.median(cpu),
        "device_ms": {name: statistics.median(values) for name, values in devices.items()},
        "call_ms": _cost_of_calls(samples),
    }


def _cost_of_calls(samples: int) -> dict[str, float]:
    nvml = Nvml()
    nvml.initialize()
    handle = list_devices(nvml)[0].handle(nvml)
    taken: dict[str, list[float]] = {}
    for _ in range(samples):
        for call in CALLS:
            started = time.perf_counter()
            call.read(nvml, handle)
            taken.setdefault(call.metrics[0].field, []).append(1e3 * (time.perf_counter() - started))
        started = time.perf_counter()
        read_processes(nvml, handle)
        taken.setdefault("processes", []).append(1e3 * (time.perf_counter() - started))
    nvml.shutdown()
    return {name: statistics.median(values) for name, values in taken.items()}


@contextmanager
def load(torch: Any) -> Iterator[None]:
    """Multiply matrices on the first GPU as long as the block runs; it begins when the driver's period has passed."""
    end = threading.Event()

    def multiply() -> None:
        matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
        while not end.is_set():
            for _ in range(10):
                torch.mm(matrix, matrix)
            torch.cuda.synchronize()

    thread = threading.Thread(target=multiply)
    thread.start()
    time.sleep(3)
    try:
        yield
    finally:
        end.set()
        thread.join()


def with_torch(torch: Any, collector: GpuCollector, *, attempts: int) -> tuple[list[Row], list[str]]:
    """Return the comparisons under a known allocation and load, and what was not as it must be."""
    complaints = []
    uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"  # CUDA's first need not be NVML's
    instance = next(device["instance"] for device in collector.facts["devices"] if device["uuid"] == uuid)
    torch.zeros(1, device="cuda")  # the context's own memory comes first
    before = collect(collector)[f"gpu:{instance}.memory_used_bytes"]
    held = torch.empty(ALLOCATED_BYTES, dtype=torch.uint8, device="cuda")
    sample = collect(collector)
    grown = sample[f"gpu:{instance}.memory_used_bytes"] - before
    if abs(grown - ALLOCATED_BYTES) > 4 * MIB:  # the driver gives memory in pieces of 2 MiB
        complaints.append(f"allocated {ALLOCATED_BYTES} bytes, memory_used_bytes grew by {grown:.0f}")
    complaints += _misattributed(sample, instance)
    rows = compare("allocated", collector, attempts=attempts)
    with load(torch):
        busy = collect(collector)[f"gpu:{instance}.utilization_percent"]
        rows += compare("load", collector, attempts=attempts)
    if busy < 90:  # NaN, as under MIG, is for the comparison
        complaints.append(f"under full load utilization_percent is {busy:.0f}")
    del held
    return rows, complaints


def _misattributed(sample: Sample, instance: str) -> list[str]:
    """Say so when memory like that of this process is shown under another pid that is ours to see."""
    shown = {
        sample[f"gpu:{instance}.process_{place}_pid"]: sample[f"gpu:{instance}.process_{place}_memory_bytes"]
        for place in range(8)
        if not math.isnan(sample[f"gpu:{instance}.process_{place}_pid"])
    }
    unattributed = sample[f"gpu:{instance}.unattributed_memory_bytes"]
    print(f"processes: {shown or 'none'}; unattributed {unattributed:.0f} bytes; we are {os.getpid()}", file=sys.stderr)
    strange = [pid for pid, held in shown.items() if held >= ALLOCATED_BYTES and pid != os.getpid()]
    return [f"our memory is shown under pid {pid:.0f}" for pid in strange if os.getpid() not in shown]


def show(rows: Sequence[Row], costs: dict[str, Any], collector: GpuCollector) -> None:
    """Print everything for a person."""
    print(f"driver {collector.facts['driver']}")
    for device in collector.facts["devices"]:
        print(f"  {device['instance']}: {device['name']} {device['uuid']} {device['memory_kind']} memory")
    print(f"\n{'phase':<10} {'gpu':<4} {'field':<24} {'ours, lowest':>16} {'highest':>16} {'nvidia-smi':>16}")
    for row in rows:
        numbers = f"{row.lowest:>16.10g} {row.highest:>16.10g} {row.theirs:>16.10g}"
        print(f"{row.phase:<10} {row.instance:<4} {row.field:<24} {numbers}{'' if row.agrees else '  DIFFERS'}")
    print(
        f"\nnow, all fields (median of one sample: {costs['sample_wall_ms']:.2f} ms, CPU {costs['sample_cpu_ms']:.2f})"
    )
    for name, value in collect(collector).items():
        reasons = (
            f"  {', '.join(throttle_names(int(value)))}" if name.endswith("throttle_reasons") and value > 0 else ""
        )
        print(f"  {name:<46} {why_unknown(value).text if math.isnan(value) else f'{value:.10g}'}{reasons}")
    print("\nmilliseconds by device, then by call of the first GPU")
    for name, taken in (*costs["device_ms"].items(), *costs["call_ms"].items()):
        print(f"  {name:<46} {taken:8.3f}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare GPU readings with nvidia-smi.")
    parser.add_argument("--json", action="store_true", help="print data instead of tables")
    parser.add_argument("--attempts", type=int, default=5, help="how often to compare before it counts as a difference")
    arguments = parser.parse_args()
    collector = discover_gpu()
    if not collector.facts["devices"] or shutil.which("nvidia-smi") is None:
        print(collector.facts["unavailable"] or "there is no nvidia-smi to compare with", file=sys.stderr)
        return 3
    rows = compare("idle", collector, attempts=arguments.attempts)
    costs, complaints = cost(collector), list[str]()
    torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
    if torch is not None and torch.cuda.is_available():
        more, complaints = with_torch(torch, collector, attempts=arguments.attempts)
        rows += more
    if arguments.json:
        print(json.dumps({"rows": [row._asdict() for row in rows], "complaints": complaints, "cost": costs}))
    else:
        show(rows, costs, collector)
    collector.close()
    for complaint in complaints:
        print(f"WRONG: {complaint}", file=sys.stderr)
    return 0 if all(row.agrees for row in rows) and not complaints else 1


if __name__ == "__main__":
    sys.exit(main())
