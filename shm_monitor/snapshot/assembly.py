"""How the numbers of one pattern become the Structs of a Snapshot, group by group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from shm_monitor.snapshot.pattern import Pattern, Pick, Pool
from shm_monitor.snapshot.plan import GpuPlan, Plan, Row
from shm_monitor.snapshot.structs import (
    CollectorState,
    Cpu,
    Device,
    Disk,
    Gpu,
    GpuProcess,
    Interface,
    Memory,
    MemoryLevel,
    Mount,
    Network,
    Rolled,
    Sampler,
    Stall,
    Worker,
    Workers,
)
from shm_monitor.snapshot.throttle import throttle_names

_Value = TypeVar("_Value")

# How many numbers a Pick takes is known to the plan alone, so what is built from them cannot be counted by a type.
_cpu: Callable[..., Cpu] = Cpu
_memory: Callable[..., Memory] = Memory
_level: Callable[..., MemoryLevel] = MemoryLevel
_network: Callable[..., Network] = Network
_disk: Callable[..., Disk] = Disk
_gpu: Callable[..., Gpu] = Gpu
_sampler: Callable[..., Sampler] = Sampler
_workers: Callable[..., Workers] = Workers


Groups = tuple[Cpu, Memory, Stall, Network, Disk, list[Gpu], Workers]
"""The groups in the order of a Snapshot."""


class Assembly:
    """What builds each group out of a Pool; prepared once per pattern, so that a sample costs no search.

    Attributes:
        unused: indices of the empty rows of process tables, whose numbers are not unknown but absent.
    """

    def __init__(self, plan: Plan, pattern: Pattern) -> None:
        """Prepare for the samples of *pattern*."""
        rows = plan.rows
        self._cpu, self._cores = pattern.pick(rows["cpu"]), _columns(pattern, plan.cores)
        self._memory, self._scope, self._scopes = pattern.pick(rows["memory"]), pattern.place(plan.scope), plan.scopes
        self._levels = [
            (name, pattern.pick(row), pattern.place(plan.level_scopes[name])) for name, row in plan.levels.items()
        ]
        self._stall = pattern.pick(rows["stall"])
        self._network, self._interfaces = pattern.pick(rows["network"]), _rows(pattern, plan.interfaces)
        self._disk, self._devices = pattern.pick(rows["disk"]), _rows(pattern, plan.devices)
        self._mounts = _rows(pattern, plan.mounts)
        self._gpus = [_GpuAssembly(gpu, pattern) for gpu in plan.gpus]
        self._workers, self._processes = pattern.pick(rows["workers"]), _table(pattern, plan.workers)
        self._sampler = pattern.pick(rows["sampler"])
        self._rolled_names = plan.rolled
        count, first = len(plan.rolled), len(plan.metrics)
        starts = (first, first + count, first + 2 * count)
        self._means, self._maxima, self._slopes = (pattern.pick(range(start, start + count)) for start in starts)
        self._other = _columns(pattern, plan.other)
        tables = [plan.workers, *(gpu.processes for gpu in plan.gpus)]
        self.unused = {at for table in tables for row in table if row[0] in pattern.missing for at in row}

    def groups(self, pool: Pool) -> Groups:
        """Return the groups. Where there is nothing to go through, an empty display costs less than a comprehension."""
        return (
            _cpu(*self._cpu(pool), _dict(self._cores, pool)),
            _memory(
                *self._memory(pool),
                self._scope_text(pool[self._scope]),
                {name: _level(*pick(pool), self._scope_text(pool[place])) for name, pick, place in self._levels},
            ),
            Stall(*self._stall(pool)),
            _network(*self._network(pool), {name: Interface(*pick(pool)) for name, pick in self._interfaces}),
            _disk(
                *self._disk(pool),
                {name: Device(*pick(pool)) for name, pick in self._devices},
                {name: Mount(*pick(pool)) for name, pick in self._mounts} if self._mounts else {},
            ),
            [gpu.read(pool) for gpu in self._gpus] if self._gpus else [],
            _workers(
                *self._workers(pool), [Worker(*pick(pool)) for pick in self._processes] if self._processes else []
            ),
        )

    def _scope_text(self, scope: float | None) -> str | None:
        """Return the name of *scope*, an index; None for one that is not known."""
        return self._scopes[int(scope)] if scope is not None and 0 <= scope < len(self._scopes) else None

    def sampler(self, pool: Pool, collectors: dict[str, CollectorState]) -> Sampler:
        """Return what the sampler costs, with the state of its *collectors*."""
        return _sampler(*self._sampler(pool), collectors)

    def rolled(self, pool: Pool) -> dict[str, Rolled]:
        """Return the statistics over the observation period, by metric name."""
        rows = map(Rolled, self._means(pool), self._maxima(pool), self._slopes(pool))
        return named(self._rolled_names, rows)

    def other(self, pool: Pool) -> dict[str, float | int | None]:
        """Return what no field knows, by metric name."""
        return _dict(self._other, pool)


class _GpuAssembly:
    """What builds one GPU out of a Pool."""

    def __init__(self, plan: GpuPlan, pattern: Pattern) -> None:
        self._constants = plan.constants
        self._numbers = pattern.pick(plan.row)
        self._throttle = pattern.place(plan.throttle_reasons)
        self._processes = _table(pattern, plan.processes)
        self._names: dict[int | None, tuple[str, ...] | None] = {None: None}

    def read(self, pool: Pool) -> Gpu:
        bits = pool[self._throttle]
        if bits not in self._names:  # the driver knows about a dozen combinations
            self._names[bits] = throttle_names(max(int(bits), 0))
        processes = [GpuProcess(*pick(pool)) for pick in self._processes]
        return _gpu(*self._constants, *self._numbers(pool), self._names[bits], processes)


def _columns(pattern: Pattern, columns: Mapping[str, int]) -> tuple[tuple[str, ...], Pick]:
    """Return names, and what takes the number of each."""
    return tuple(columns), pattern.pick(list(columns.values()))


def _dict(columns: tuple[tuple[str, ...], Pick], pool: Pool) -> dict[str, float | int | None]:
    names, pick = columns
    return named(names, pick(pool)) if names else {}


def named(names: Iterable[str], values: Iterable[_Value]) -> dict[str, _Value]:
    """Return *values* by name; there are as many of both, and a strict zip would cost as much again (0.2 us)."""
    return dict(zip(names, values))  # noqa: B905


def _rows(pattern: Pattern, rows: Mapping[str, Row]) -> list[tuple[str, Pick]]:
    return [(name, pattern.pick(row)) for name, row in rows.items()]


def _table(pattern: Pattern, rows: Iterable[Row]) -> list[Pick]:
    """Return what takes each row of a process table that has a pid."""
    return [pattern.pick(row) for row in rows if row[0] not in pattern.missing]
