"""Does a leak that frees half once per episode live on at the default settings? Writes a table of docs/decisions.md.

``python -m bench.halving docs/decisions.md [--runs N]``, as root: real memory cgroups of 512 MB without swap, a real
sampler beside each with the settings of a user who sets nothing, a real leak inside. It leaks on at the same rate, and
frees half of what it holds each time that ``reader.episode()`` has another number.
"""

from __future__ import annotations

import argparse
import mmap
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import shm_monitor as sm
from tests.support.load_cgroup import memory_group, sampler
from tests.support.surroundings import child_environment
from tests.support.waiting import wait_until

MIB = 1 << 20
GROUP_MB = 512
RATES_PERCENT = (11, 24, 49)  # of the cgroup, per second
LEAK_SECONDS = 30.0  # three observation periods
TURN_SECONDS = 0.01
CATCH_UP_SECONDS = 0.1  # a worker that the host gave no CPU for longer goes on at its rate: a jump is no leak
BEGIN, END = "<!-- survivors: written by bench/halving.py -->\n", "<!-- end of survivors -->\n"


class Leak(NamedTuple):
    """How one leak ended: alive or not, how often it was told, and what it held at each time, in MB."""

    alive: bool
    told_at_mb: tuple[int, ...]


def leak(name: str, mb_per_second: float) -> None:
    """Leak for LEAK_SECONDS; free half once per episode, and say so."""
    blocks: list[mmap.mmap] = []
    with sm.attach(name, watch=["memory"]) as reader:
        print("ready", flush=True)
        sys.stdin.readline()
        wanted, last = 0.0, 0
        before = time.monotonic()
        end = before + LEAK_SECONDS
        while before < end:
            now = time.monotonic()
            wanted, before = wanted + mb_per_second * min(now - before, CATCH_UP_SECONDS), now
            while len(blocks) < wanted:
                blocks.append(_block())
            episode = reader.episode()
            if episode and episode.number != last:
                last = episode.number
                print(len(blocks), flush=True)
                for block in blocks[len(blocks) // 2 :]:
                    block.close()
                del blocks[len(blocks) // 2 :]
                wanted = float(len(blocks))
            time.sleep(TURN_SECONDS)
    print("alive", flush=True)


def _block() -> mmap.mmap:
    block = mmap.mmap(-1, MIB)
    for place in range(0, MIB, mmap.PAGESIZE):
        block[place] = 1
    return block


def run(percent_per_second: float, **settings: object) -> Leak:
    """Run one leak in a cgroup of its own."""
    with memory_group(GROUP_MB) as group, sampler(scope=group.name, **settings) as manager:
        config = manager.config
        enter = f'echo $$ > {group.path}/cgroup.procs && exec "$0" "$@"'
        rate = str(percent_per_second / 100 * GROUP_MB)
        program = [sys.executable, "-P", "-m", "bench.halving", "--leak", manager.name, rate]
        with subprocess.Popen(
            ["/bin/sh", "-c", enter, *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(),
        ) as worker:
            try:
                assert worker.stdout is not None
                assert worker.stdout.readline() == "ready\n"
                observed = 0.5 * config.observation_period / config.check_interval + 1
                wait_until(lambda: manager.snapshot().sequence > observed)
                said = worker.communicate("\n", timeout=LEAK_SECONDS + 60)[0].split()
            finally:
                worker.kill()
    return Leak(said[-1:] == ["alive"], tuple(int(one) for one in said if one != "alive"))


def row(percent_per_second: float, count: int) -> str:
    """Return the line of one rate."""
    runs = []
    for number in range(count):
        runs.append(run(percent_per_second))
        print(percent_per_second, number, runs[-1], file=sys.stderr, flush=True)
    alive = sum(one.alive for one in runs)
    told = statistics.median(len(one.told_at_mb) for one in runs)
    shares = sorted(100 * mb / GROUP_MB for one in runs for mb in one.told_at_mb) or [float("nan")]
    middle = statistics.median(shares)
    return (
        f"| {percent_per_second:g} % a second | {alive} of {count} | {told:g} | {middle:.0f} % | {shares[-1]:.0f} % |"
    )


HEAD = """Real leaks in a cgroup of 512 MB, {count} each, on {cores} cores, with a sampler at the default settings. Each
leaks for {seconds:g} s at the same rate and frees half of what it holds once per episode.

| leak | alive | episodes | told at | at most |
|---|---|---:|---:|---:|
"""


def main() -> int:
    """Run one leak, or all of them; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, nargs="?")
    parser.add_argument("--leak", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--rates", type=float, nargs="*", default=RATES_PERCENT)
    given = parser.parse_args()
    if given.leak:
        leak(given.leak[0], float(given.leak[1]))
        return 0
    rows = "\n".join(row(rate, given.runs) for rate in given.rates)
    table = HEAD.format(count=given.runs, cores=os.cpu_count(), seconds=LEAK_SECONDS) + rows
    if given.page is None:
        print(table)
        return 0
    before, _, rest = given.page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    given.page.write_text(f"{before}{BEGIN}\n{table}\n\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
