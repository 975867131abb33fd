"""Put the names of processes into a Snapshot, whose sample has only numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shm_monitor.process_names import ProcessName
    from shm_monitor.snapshot.structs import GpuProcess, Snapshot, Worker

    _Row = TypeVar("_Row", Worker, GpuProcess)


def named(snapshot: Snapshot, names: Mapping[int, ProcessName]) -> Snapshot:
    """Return *snapshot* with the names of its processes, by pid. 20 us for 16 of them."""
    if not names:
        return snapshot
    workers = replace(snapshot.workers, processes=_rows(snapshot.workers.processes, names))
    gpus = [replace(gpu, processes=_rows(gpu.processes, names)) for gpu in snapshot.gpus]
    return replace(snapshot, workers=workers, gpus=gpus)


def _rows(rows: Sequence[_Row], names: Mapping[int, ProcessName]) -> list[_Row]:
    return [replace(row, **names[row.pid]._asdict()) if row.pid in names else row for row in rows]
