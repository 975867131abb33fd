"""A source of frames that a test scripts, and the screen that shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from shm_monitor.errors import MonitorError
from shm_monitor.snapshot.structs import Cpu, Gpu, LimitState, Memory, Snapshot, Worker, Workers
from shm_monitor.tui.source import Frame

if TYPE_CHECKING:
    from textual.app import App
    from textual.widgets import Static

GB = 2**30


def snapshot(sequence: int = 1, level: str = "ok", used: float = 0.5, **fields: object) -> Snapshot:
    """Return a sample of a machine with 16 GB whose memory is *used* (0 to 1)."""
    whole = 16 * GB
    limit = LimitState(
        "memory", "memory.usage_bytes", level, value=used * whole, mean=used * whole, limit_value=0.9 * whole
    )
    limit = msgspec.structs.replace(
        limit, target=0.81 * whole, capacity=float(whole), reasons=("level",) * (level == "prune")
    )
    given = {
        "cpu": Cpu(cpu_percent=40.0, effective_count=2.0, load_1=0.5, core_percent={"0": 30.0, "1": 95.0}),
        "memory": Memory(usage_bytes=int(used * whole), capacity_bytes=whole, usage_percent=100 * used),
        "workers": Workers(
            2, 10.0, 3 * GB, None, [Worker(11, 5.0, GB, name="train.py"), Worker(12, 1.0, 2 * GB, name="loader")]
        ),
        "limits": [limit],
        **fields,
    }
    pressed = level in {"prune", "critical"}
    return Snapshot("job", sequence, 7, 1.8e9 + sequence, 0.1, 1.0, False, False, level, pressed, **given)  # type: ignore[arg-type]  # noqa: FBT003


GPU = Gpu(
    "0",
    0,
    "GPU-1",
    "H200",
    utilization_percent=50.0,
    memory_used_bytes=GB,
    memory_total_bytes=4 * GB,
    temperature_celsius=60.0,
    power_watts=300.0,
    throttle_reasons=("sw_power_cap",),
)


class Scripted:
    """A source that says what a test tells it to.

    Attributes:
        frame: what is newest.
        before: the samples before it.
        injected: what was asked to be falsified.
    """

    title = "job"
    waits = False

    def __init__(self, frame: Frame, before: list[Snapshot] | None = None) -> None:
        self.frame = frame
        self.before = before or []
        self.injected: list[tuple[dict[str, float], float]] = []
        self.allows = True

    def newest(self) -> Frame:
        return self.frame

    def past(self, count: int) -> list[Snapshot]:
        return self.before[-count:]

    def sources(self) -> dict[str, str]:
        return {"memory.usage_bytes": "memory.current (v2)"}

    def inject(self, readings: dict[str, float], seconds: float) -> None:
        if not self.allows:
            raise MonitorError("not allowed")
        self.injected.append((readings, seconds))

    def close(self) -> None:
        """Nothing to let go."""


def text_of(app: App[None], panel: str) -> str:
    """Return what the panel *panel* shows."""
    widget: Static = app.query_one(f"#{panel}")  # type: ignore[assignment]
    return str(widget.content)
