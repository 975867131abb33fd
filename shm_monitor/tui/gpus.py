"""The panel of the GPUs: pure functions from a sample to rows."""

from __future__ import annotations

from collections.abc import Callable

from rich.text import Text

from shm_monitor.snapshot.structs import Gpu, Snapshot
from shm_monitor.tui.axis import Series
from shm_monitor.tui.look import Look
from shm_monitor.tui.marks import GREY, bar, heat
from shm_monitor.tui.rows import Chart, Row, wrapped
from shm_monitor.units import human, size

CHARTED_GPUS = 2  # more of them have a line each, and no history: eight fit on a screen


def gpus(snapshot: Snapshot, look: Look) -> list[Row]:
    """Return each GPU: utilization, memory, power, temperature, what holds its clocks down; of few the history."""
    if not snapshot.gpus:
        return list(wrapped(snapshot.unavailable.get("gpu", "no GPU"), look.width, GREY))
    names = [one.name for one in snapshot.gpus]
    rows: list[Row] = list(wrapped(", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)),
                                   look.width, GREY))  # fmt: skip
    for gpu in snapshot.gpus:
        rows += _gpu_charts(gpu) if len(names) <= CHARTED_GPUS else [_gpu_line(gpu, look.width)]
        state = f"of {size(gpu.memory_total_bytes)}, {_state_of(gpu)}" if len(names) <= CHARTED_GPUS else ""
        slow = f"throttled: {', '.join(gpu.throttle_reasons)}" if gpu.throttle_reasons else ""
        style = "yellow" if slow else ""
        rows += wrapped(", ".join(filter(None, (state, slow))), look.width, style, indent="  ")
    return rows


def _gpu_charts(gpu: Gpu) -> list[Row]:
    label, use = f"gpu {gpu.instance}", human("_percent", gpu.utilization_percent)
    whole = float(gpu.memory_total_bytes or 1)
    return [
        Chart(label, use, _of_gpu(gpu, lambda one: one.utilization_percent), "_percent", 100.0),
        Chart(
            "  memory", size(gpu.memory_used_bytes), _of_gpu(gpu, lambda one: one.memory_used_bytes), "_bytes", whole
        ),
    ]


def _gpu_line(gpu: Gpu, width: int) -> Text:
    use = f" {human('_percent', gpu.utilization_percent):>7} "
    words = f" {f'{size(gpu.memory_used_bytes)}/{size(gpu.memory_total_bytes)}':>15} {_state_of(gpu):>11}"
    label = f"gpu {gpu.instance:2} "
    cells = max((width - len(label) - len(use) - len(words)) // 2, 4)
    share = None if gpu.utilization_percent is None else gpu.utilization_percent / 100
    held = gpu.memory_used_bytes / gpu.memory_total_bytes if gpu.memory_used_bytes and gpu.memory_total_bytes else None
    line = Text(label) + bar(share, cells, style=heat(gpu.utilization_percent)) + use
    return line + bar(held, cells, style="cyan") + words


def _state_of(gpu: Gpu) -> str:
    return f"{human('_celsius', gpu.temperature_celsius)} {human('_watts', gpu.power_watts)}"


def _of_gpu(gpu: Gpu, field: Callable[[Gpu], float | None]) -> Series:
    return lambda one: next((field(other) for other in one.gpus if other.instance == gpu.instance), None)
