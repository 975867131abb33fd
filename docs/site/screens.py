"""``python -m docs.site.screens``: docs/images/top.svg, the program's own screen as textual exports it.

The screen is the real one; the node that it shows is made up, so that there is everything on it: a training job with
two GPUs in a container of 64 GB, whose memory has grown to its limit.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from pathlib import Path

import numpy as np

from shm_monitor.snapshot.structs import (
    Cpu,
    Device,
    Disk,
    Gpu,
    LimitState,
    Memory,
    MemoryLevel,
    Network,
    Present,
    Snapshot,
    Stall,
    Worker,
    Workers,
)
from shm_monitor.tui.app import TopApp
from shm_monitor.tui.source import Frame
from shm_monitor.worker.explanation import ReasonState

PLACE = Path(__file__).parents[1] / "images"
GB = 2**30
SIZE = (120, 34)
SAMPLES = 300
BEGAN = 1_790_000_000.0
NAMES = {4101: "train.py", 4117: "dataloader-0", 4118: "dataloader-1", 4119: "dataloader-2"}


def main() -> None:
    """Write the picture."""
    os.environ["TZ"] = "UTC"
    time.tzset()
    PLACE.mkdir(exist_ok=True)
    (PLACE / "top.svg").write_text(asyncio.run(picture()), encoding="utf-8")


async def picture(size: tuple[int, int] = SIZE) -> str:
    """Return the screen of *size* as SVG."""
    app = TopApp(Node(), url="http://127.0.0.1:8909", turn_seconds=3600.0)
    async with app.run_test(size=size) as pilot:
        await app.look()
        await pilot.pause()
        return app.export_screenshot(title="shm-monitor top")


class Node:
    """A source of frames: the made-up node."""

    title = "train-42"
    waits = False

    def newest(self) -> Frame:
        """Return the last sample, which presses."""
        snapshot = sample(SAMPLES)
        limit = snapshot.limits[1]
        since = BEGAN + SAMPLES - 24
        reason = ReasonState("memory:0", "level", "prune", "bytes", "/job/train-42", since, *_bars(limit))
        return Frame("live", snapshot, (str(reason),))

    def past(self, count: int) -> list[Snapshot]:
        """Return the samples before it."""
        return [sample(at) for at in range(max(SAMPLES - count, 0), SAMPLES)]

    def sources(self) -> dict[str, str]:
        """Return where the numbers come from."""
        return {"memory.usage_bytes": "memory.current (v2)"}

    def inject(self, readings: dict[str, float], seconds: float) -> None:
        """Take none: this is a picture."""

    def close(self) -> None:
        """Nothing is open."""


def _bars(limit: LimitState) -> tuple[float | None, ...]:
    return limit.value, limit.mean, limit.limit_value, limit.capacity, limit.seconds_to_limit


def sample(at: int) -> Snapshot:
    """Return the sample number *at* of the node."""
    noise = np.random.default_rng(at)
    share = 0.62 + 0.2 * at / SAMPLES + (0.11 if at > SAMPLES - 40 else 0.0) + noise.normal(0, 0.004)
    pressed = at > SAMPLES - 25
    level = "prune" if pressed else "warn" if share > 0.81 else "ok"
    used, host = int(share * 64 * GB), int((0.3 + 0.2 * share) * 256 * GB)
    waves = [50 + 40 * math.sin(at / 7 + core) + noise.normal(0, 6) for core in range(16)]
    return Snapshot(
        "train-42", at, 7, BEGAN + at, 0.2, 1.0, False, False, level, pressed,  # noqa: FBT003
        cpu=Cpu(float(np.mean(waves)), 31.0, 64, 16.0, 11.2, core_percent=dict(zip("0123456789abcdef", waves))),  # noqa: B905
        memory=_memory(used, host, share),
        stall=_stall(at, pressed=pressed),
        network=Network(None, 8.1e8 + 2e8 * math.sin(at / 5), 2.4e7),
        disk=Disk(3.2e8 + 1.5e8 * math.sin(at / 6), 1.1e7, {"nvme0n1": Device()}),
        gpus=[_gpu(number, at) for number in range(2)],
        workers=_workers(share),
        limits=[_limit("memory:host", host, 256 * GB, "ok"), _limit("memory:0", used, 64 * GB, level)],
        present=[Present(0, 4101, 1.0, int(38 * share * GB), 1.9, 2 * GB * pressed, "memory", 7, 6, 0, 0)],
    )  # fmt: skip


def _stall(at: int, *, pressed: bool) -> Stall:
    return Stall(
        cpu_some_percent=6.0 + 2 * math.sin(at / 9), memory_full_percent=9.0 if pressed else 0.3, io_full_percent=1.1
    )


def _memory(used: int, host: int, share: float) -> Memory:
    levels = {"host": MemoryLevel(host, 256 * GB), "0": MemoryLevel(used, 64 * GB, scope="/job/train-42")}
    return Memory(
        used, 64 * GB, 64 * GB - used, 100 * share, 256 * GB, 256 * GB - host, swap_total_bytes=0,
        shm_total_bytes=32 * GB, shm_used_bytes=9 * GB, scope="/job/train-42", levels=levels,
    )  # fmt: skip


def _gpu(number: int, at: int) -> Gpu:
    return Gpu(
        str(number), number, f"GPU-{number}", "NVIDIA H100 80GB HBM3",
        utilization_percent=min(93.0 + 6 * math.sin(at / 4 + number), 100.0),
        memory_used_bytes=(71 - 9 * number) * GB, memory_total_bytes=80 * GB, temperature_celsius=68.0 - 5 * number,
        power_watts=652.0 - 40 * number, throttle_reasons=("sw_power_cap",) * (number == 0),
    )  # fmt: skip


def _workers(share: float) -> Workers:
    parts = (0.62, 0.13, 0.12, 0.11)
    found = [
        Worker(pid, 310.0 * part, int(64 * share * part * GB), name=name)
        for (pid, name), part in zip(NAMES.items(), parts, strict=True)
    ]
    return Workers(4, 303.0, sum(one.rss_bytes or 0 for one in found), None, found)


def _limit(name: str, used: int, capacity: int, level: str) -> LimitState:
    pressed = level == "prune"
    return LimitState(
        name, "memory.usage_bytes", level, ("level",) * pressed, float(used), float(used), float(used), 0.9 * capacity,
        0.81 * capacity, float(capacity), 38.0 if pressed else None, BEGAN + SAMPLES - 24 if pressed else None,
        {"level": 2, "forecast": 0} if pressed else {},
    )  # fmt: skip


if __name__ == "__main__":
    main()
