"""Verbs that look at one sampler: each a function of a reader, so they are tested without a process."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import msgspec

from shm_monitor import exits
from shm_monitor.segment import names
from shm_monitor.segment.status import LIVE
from shm_monitor.units import printable, printable_lines, size
from shm_monitor.worker.attaching import attach
from shm_monitor.worker.reader import Reader

if TYPE_CHECKING:
    import argparse

    from shm_monitor.segment.status import Status
    from shm_monitor.snapshot.structs import Present


def snapshot(given: argparse.Namespace) -> int:
    """Print the newest sample."""
    from shm_monitor.snapshot.structs import encode_json, encode_msgpack
    from shm_monitor.snapshot.table import render_table

    with attach(given.name, timeout=0.0, scope="any") as reader:
        newest = reader.snapshot()
        if given.msgpack:
            sys.stdout.buffer.write(encode_msgpack(newest))
        else:
            print(printable(encode_json(newest).decode()) if given.json else render_table(newest))
        return _alive_or_say(reader.status())


def check(given: argparse.Namespace) -> int:
    """Print the verdict and return it as an exit status, so ``shm-monitor check || skip`` works."""
    watch = [limit.strip() for text in given.watch or () for limit in text.split(",") if limit.strip()]
    with attach(given.name, timeout=0.0, watch=watch or None) as reader:
        return verdict(reader, as_json=given.json)


def verdict(reader: Reader, *, as_json: bool) -> int:
    """Print what *reader* answers; a sampler that is not alive is no answer."""
    found = reader.status()
    if found.state != LIVE:
        return _alive_or_say(found)
    answer = reader.explain()
    print(printable(msgspec.json.encode(answer).decode()) if as_json else answer)
    return exits.PRUNE if answer.should_prune else exits.FINE


def status(given: argparse.Namespace) -> int:
    """Print the state of the sampler."""
    with attach(names.resolve(given.name), timeout=0.0, required=False, scope="any") as reader:
        found, present, unknown = reader.status(), reader.snapshot().present, reader.explain().unknown
    if given.json:
        further = {"present": present, "unknown": unknown}
        print(json.dumps(as_json(found) | {key: msgspec.to_builtins(one) for key, one in further.items()}))
    else:
        print(
            printable_lines("\n".join([_table(found), *map(_present_line, present), *(f"  {one}" for one in unknown)]))
        )
    return exits.FINE if found.state == LIVE else exits.NO_SAMPLER


def schema(given: argparse.Namespace) -> int:
    """Print every metric that the sampler publishes."""
    with attach(given.name, timeout=0.0, scope="any") as reader:
        metrics = reader.view().schema.metrics
    if given.json:
        print(json.dumps([{"name": metric.name} | metric._asdict() for metric in metrics], indent=2))
        return exits.FINE
    names = [printable(metric.name) for metric in metrics]
    width = max(map(len, names))
    for name, metric in zip(names, metrics, strict=True):
        source = f" [{metric.source}]" if metric.source else ""
        print(f"{name:{width}}  {printable(f'{metric.unit:16}  {metric.help}{source}')}")
    return exits.FINE


def as_json(found: Status) -> dict[str, object]:
    """Return *found* as plain data."""
    collectors = {name: one._asdict() for name, one in found.collectors.items()}
    return found._asdict() | {"collectors": collectors}


def _alive_or_say(found: Status) -> int:
    if found.state == LIVE:
        return exits.FINE
    step = f"shm-monitor status --name {found.name}"
    print(f"shm-monitor: the sampler {found.name!r} is {found.state}; try: {step}", file=sys.stderr)
    return exits.NO_SAMPLER


def _present_line(one: Present) -> str:
    of = "" if one.limit == "memory" else f" of {one.limit}"
    asked = f", asked to shed {size(one.request_bytes)}{of} in round {one.round_number}" if one.request_bytes else ""
    vain = f", asked in vain {one.in_vain_count} times" if one.in_vain_count else ""
    held = f"{one.name or '-'} holds {size(one.held_bytes)}, {one.share:.1f} x its share"
    return f"  worker {one.pid:<10} {held}{asked}{vain}"


def _table(found: Status) -> str:
    lines = [f"{found.name}: {found.state}"]
    if found.detail:
        lines.append(f"  {found.detail}")
    if found.sequence is not None:
        lines += [
            f"  last turn   {found.age_seconds:.2f} s ago, one every {found.interval_seconds:g} s",
            f"  sample      {found.sequence}, epoch {found.epoch:x}",
            f"  sampler     pid {found.pid}, taken over {found.restarts} times",
        ]
    for name, one in found.collectors.items():
        age = "never yet" if one.last_ok_age_seconds is None else f"{one.last_ok_age_seconds:.1f} s ago"
        lines.append(f"  {name:12}last success {age}, {one.errors_count} errors")
    return "\n".join(lines)
