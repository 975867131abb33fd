"""A Snapshot as text for people: units that can be read, ``-`` for what is unknown, and the reasons at the end."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from shm_monitor.snapshot.structs import Gpu, LimitState, Snapshot
from shm_monitor.units import Cell, human, printable, suffix

_WIDTH = 100
_INDENT = "  "
_LIMIT_COLUMNS = ("value", "mean", "maximum", "limit_value", "target", "capacity")


def render_table(snapshot: Snapshot) -> str:
    """Return *snapshot* as aligned text, without a newline at its end."""
    blocks = [
        [_headline(snapshot)],
        _limits(snapshot.limits, snapshot.sampled_at),
        _group("cpu", snapshot.cpu, snapshot.cpu.core_percent),
        _group("memory", snapshot.memory) + _table("level", snapshot.memory.levels),
        _group("stall", snapshot.stall),
        _group("network", snapshot.network) + _table("interface", snapshot.network.interfaces),
        _group("disk", snapshot.disk) + _table("device", snapshot.disk.devices) + _table("mount", snapshot.disk.mounts),
        *map(_gpu, snapshot.gpus),
        _group("workers", snapshot.workers) + _processes(snapshot.workers.processes),
        _group("sampler", snapshot.sampler) + _table("collector", snapshot.sampler.collectors),
        _other(snapshot.other),
        _unavailable(snapshot.unavailable),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _label(field: str) -> str:
    """Return *field* without its unit, in words; bytes that are counted stay apart from bytes per second."""
    ending = suffix(field)
    words = field.removesuffix(ending).replace("_", " ")
    return f"{words} rate" if ending == "_bytes_per_second" else words


def _headline(snapshot: Snapshot) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(snapshot.sampled_at))
    marks = [
        *(["STALE: no live sampler behind it"] if snapshot.stale else []),
        *(["DEGRADED: no newer sample could be read"] if snapshot.degraded else []),
        *([f"INJECTED: {', '.join(snapshot.injected)}"] if snapshot.injected else []),
    ]
    age = human("age_seconds", snapshot.age_seconds)
    head = f"{snapshot.name}: {snapshot.level}, sample {snapshot.sequence} of {at}, {age} old"
    return "\n".join(map(printable, [head, *marks]))


def _limits(limits: Sequence[LimitState], sampled_at: float) -> list[str]:
    rows = []
    for one in limits:
        pressed = "-" if one.since is None else human("_seconds", max(sampled_at - one.since, 0.0))
        numbers = [human(one.metric, getattr(one, column)) for column in _LIMIT_COLUMNS]
        ahead = human("_seconds", one.seconds_to_limit)
        rows.append([one.limit, one.level, *numbers, ahead, pressed, ", ".join(one.reasons) or "-"])
    heads = [*map(_label, _LIMIT_COLUMNS), "ahead", "pressed for", "reasons"]
    return _aligned([["limit", "level", *heads], *rows]) if rows else []


def _group(name: str, group: msgspec.Struct, columns: Mapping[str, Cell] | None = None) -> list[str]:
    """Return the plain fields of *group* as cells side by side; nothing where all are unknown."""
    fields = {
        key: value for key in group.__struct_fields__ if not isinstance(value := getattr(group, key), dict | list)
    }
    if all(value is None for value in fields.values()):
        return []
    cells = [f"{_label(key)} {human(key, value)}" for key, value in fields.items()]
    cells += [f"core {key} {human('_percent', value)}" for key, value in (columns or {}).items()]
    return [name.upper(), *_columns(cells)]


def _gpu(gpu: Gpu) -> list[str]:
    kind = " MIG" if gpu.mig else f" {gpu.memory_kind}" if gpu.memory_kind == "unified" else ""
    numbers = {key: getattr(gpu, key) for key in gpu.__struct_fields__[6:-2]}
    held = gpu.throttle_reasons
    cells = [f"{_label(key)} {human(key, value)}" for key, value in numbers.items()]
    cells.append(f"throttle {'-' if held is None else ', '.join(held) or 'none'}")
    head = printable(f"GPU {gpu.instance}{kind}: {gpu.name} {gpu.uuid}".rstrip())
    return [head, *_columns(cells), *_processes(gpu.processes)]


def _table(head: str, rows: Mapping[str, msgspec.Struct]) -> list[str]:
    """Return Structs of one kind as a table, one row each."""
    fields = next(iter(rows.values())).__struct_fields__ if rows else ()
    lines = [[name, *(human(field, getattr(row, field)) for field in fields)] for name, row in rows.items()]
    return _aligned([[head, *map(_label, fields)], *lines]) if rows else []


def _processes(rows: Sequence[msgspec.Struct]) -> list[str]:
    """Return the rows of a process table, whose first field is the pid; a column without any text is left out."""
    fields = [field for field in (rows[0].__struct_fields__[1:] if rows else ()) if _is_used(field, rows)]
    lines = [[str(getattr(row, "pid", "-")), *(human(field, getattr(row, field)) for field in fields)] for row in rows]
    return _aligned([["pid", *map(_label, fields)], *lines]) if rows else []


def _is_used(field: str, rows: Sequence[msgspec.Struct]) -> bool:
    return any(getattr(row, field) != "" for row in rows)


def _other(other: Mapping[str, Cell]) -> list[str]:
    return ["OTHER", *_columns([f"{name} {human(name, value)}" for name, value in other.items()])] if other else []


def _unavailable(unavailable: Mapping[str, str]) -> list[str]:
    """Return which readings are unknown, by reason; a reason in words comes after what it explains."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in unavailable.items():
        by_reason.setdefault(reason, []).append(name)
    texts = [
        f"{', '.join(names)}: {reason}" if " " in reason else f"{reason}: {', '.join(names)}"
        for reason, names in by_reason.items()
    ]
    lines = ["UNKNOWN"] if texts else []
    for text in texts:
        lines += textwrap.wrap(printable(text), _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT * 2)
    return lines


def _columns(cells: Sequence[str]) -> list[str]:
    """Return *cells* side by side, as many as fit into a line."""
    cells = [printable(cell) for cell in cells]
    width = max(map(len, cells)) + 3
    count = max((_WIDTH - len(_INDENT)) // width, 1)
    lines = (cells[start : start + count] for start in range(0, len(cells), count))
    return [(_INDENT + "".join(cell.ljust(width) for cell in line)).rstrip() for line in lines]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return *rows* with columns of one width, the first on the left, the others on the right."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [(_INDENT + "  ".join(_justified(row, widths))).rstrip() for row in rows]


def _justified(row: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    return (
        cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
