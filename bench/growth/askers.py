"""Workers that ask one sampler all at once. Usage: python -m bench.growth.askers NAME COUNT SECONDS

Forked, so that an Event can be shared and 256 of them fit. Each times short stretches of each question by its own CPU
clock, in turns. Standard output: one line of JSON, ``Asked``.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import sys
import time
from multiprocessing.synchronize import Event

import msgspec

import shm_monitor
from bench.measure import nothing, timer_of
from bench.stage import private_bytes

CALLS = 10_000
EVENT_CALLS = 1_000
TURNS_LEAST = 5


class Asked(msgspec.Struct, frozen=True):
    """Medians over the workers: CPU seconds of one call, and of the ratio to an empty function; bytes of one worker."""

    empty_seconds: float
    should_prune_seconds: float
    event_seconds: float
    ratio: float
    private_bytes: float


def main(arguments: list[str]) -> int:
    """Run the workers; return the exit status."""
    name, count, seconds = arguments[0], int(arguments[1]), float(arguments[2])
    event = multiprocessing.get_context("fork").Event()
    ready, begin, told = os.pipe(), os.pipe(), os.pipe()
    for _ in range(count):
        if os.fork() == 0:
            os.close(begin[1])
            told_line = work(name, event, seconds, ready=ready[1], begin=begin[0])
            os.write(told[1], told_line)  # below PIPE_BUF: lines of many writers stay whole
            os._exit(0)
    os.close(told[1])
    for _ in range(count):
        assert os.read(ready[0], 1)
    os.close(begin[1])  # they all see the end of this pipe at once
    with os.fdopen(told[0], "rb") as lines:
        seen = [json.loads(line) for line in lines]
    assert len(seen) == count
    print(msgspec.json.encode(Asked(*map(statistics.median, zip(*seen, strict=True)))).decode())
    return 0


def work(name: str, event: Event, seconds: float, *, ready: int, begin: int) -> bytes:
    """Attach, wait until all are ready, ask for *seconds*; return the medians as one line of JSON."""
    with shm_monitor.attach(name) as reader:
        timers = [
            (timer_of(call, time.process_time), calls)
            for call, calls in ((nothing, CALLS), (reader.should_prune, CALLS), (event.is_set, EVENT_CALLS))
        ]
        os.write(ready, b".")
        os.read(begin, 1)
        end, turns = time.monotonic() + seconds, list[list[float]]()
        while time.monotonic() < end or len(turns) < TURNS_LEAST:
            turns.append([timed(calls) for timed, calls in timers])
        ratio = statistics.median(turn[1] / turn[0] for turn in turns)
        medians = [statistics.median(column) for column in zip(*turns, strict=True)]
        return json.dumps([*medians, ratio, private_bytes(os.getpid())]).encode() + b"\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
