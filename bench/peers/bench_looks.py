"""What one look and one hour of watching cost by other means, each beside ours in the same process."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.growth.bench_metrics import stand_in
from bench.measure import Rows, run
from bench.peers.looking import NOT_INSTALLED, Looked
from bench.results import Row
from bench.stage import SamplerProcess, here
from shm_monitor.config.resource import ResourceConfig

GPUS = 8
HOUR_SECONDS = 3600
WATCHED_SECONDS = 10.0
OURS_PER_HOUR = "the sampler at 1 Hz, once a host: CPU an hour"


class Peer(NamedTuple):
    """A peer: its name in bench.peers.looking and in the table, how often it looks, and what it does besides."""

    key: str
    case: str
    looks_per_second: float | None
    note: str


PEERS = (
    Peer("psutil_memory", "`psutil.virtual_memory()`", None, "it reads now, ours is as old as the last sample."),
    Peer("psutil_everything", "psutil, what a sample has of the host", None, "as above."),
    Peer(
        "glances_memory",
        "`glances.api.GlancesAPI().mem`",
        None,
        "swap, file systems, sensors, containers and processes by other names; an answer is up to 2 s old.",
    ),
    Peer(
        "dask_monitor",
        "Dask, `WorkerMemoryManager.memory_monitor()`",
        10.0,
        "it spills and pauses by itself, and knows what its keys take. It sees its own process alone.",
    ),
    Peer(
        "ray_monitor",
        "Ray, `MemoryMonitor.get_memory_usage()`",
        4.0,
        "Ray's own process looks four times a second in C++, which is cheaper than this class of its package, and "
        "kills the newest task by itself. It sees memory alone.",
    ),
)


@functools.cache
def looked_here(key: str) -> Looked:
    """Return what one look of the peer *key* costs on this machine, measured once a run."""
    return looked(key)


def looked(key: str, environ: dict[str, str] | None = None) -> Looked:
    """Return what one look of the peer *key* costs; skips where it is not installed."""
    command = [sys.executable, "-m", "bench.peers.looking", key]
    done = subprocess.run(command, env={**here(), **(environ or {})}, capture_output=True, check=False)
    if done.returncode == NOT_INSTALLED:
        pytest.skip(f'{done.stderr.decode().strip()}; try: pip install "shm-monitor[bench]"')
    assert done.returncode == 0, done.stderr.decode()
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Looked)


def measured(benchmark: BenchmarkFixture, measure: Callable[[], Looked]) -> Looked:
    """Return what *measure* saw."""
    seen = list[Looked]()
    run(benchmark, lambda: seen.append(measure()))
    return seen[0]


@pytest.mark.benchmark(group="peers")
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.key)
def bench_one_look(benchmark: BenchmarkFixture, rows: Rows, peer: Peer) -> None:
    """What does one look cost a worker, by CPU, beside `should_prune()` under pressure in the same process?"""
    seen = measured(benchmark, lambda: looked_here(peer.key))
    rows.add(Row(peer.case, seen.seconds, "seconds", seen.times_should_prune, "`should_prune()`", note=peer.note))
    if peer.key == "psutil_everything":
        case = "`snapshot()` of a new sample, all groups"
        ratio = seen.snapshot_seconds / seen.should_prune_seconds
        rows.add(Row(case, seen.snapshot_seconds, "seconds", ratio, "`should_prune()`"))


@pytest.mark.benchmark(group="peers")
def bench_look_at_gpus(benchmark: BenchmarkFixture, rows: Rows, tmp_path: Path) -> None:
    """What does one look at 8 GPUs cost? (A stand-in for NVML answers at once; a driver takes its own time.)"""
    seen = measured(benchmark, lambda: looked("nvitop_devices", stand_in(tmp_path, GPUS)))
    case, against = f"nvitop, `Device.as_snapshot()` of {GPUS} GPUs", "`snapshot()` of a new sample, all groups"
    note = "encoders, fans and the limits of clocks and power; it asks the driver each time."
    rows.add(Row(case, seen.seconds, "seconds", seen.times_snapshot, against, note=note))
    rows.add(Row(against, seen.snapshot_seconds, "seconds"))


@pytest.mark.benchmark(group="peers")
def bench_an_hour(benchmark: BenchmarkFixture, rows: Rows, name: str) -> None:
    """What does an hour of watching cost, by CPU?"""
    with SamplerProcess(ResourceConfig(name=name)) as sampler:
        time.sleep(2.0)
        used, began = sampler.cpu_seconds(), time.monotonic()
        run(benchmark, lambda: time.sleep(WATCHED_SECONDS))
        ours = (sampler.cpu_seconds() - used) / (time.monotonic() - began) * HOUR_SECONDS
    rows.add(Row(OURS_PER_HOUR, ours, "seconds"))
    for peer in PEERS:
        if peer.looks_per_second is not None:
            try:
                hour = looked_here(peer.key).seconds * peer.looks_per_second * HOUR_SECONDS
            except pytest.skip.Exception:
                continue
            who = "each worker" if peer.key == "dask_monitor" else "once a host"
            case = f"{peer.case}, {peer.looks_per_second:g} times a second, {who}: CPU an hour"
            rows.add(Row(case, hour, "seconds", hour / ours, "the sampler"))
