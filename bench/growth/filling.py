"""Samplers in this process whose windows are full. Usage: python -m bench.growth.filling KERNELS SAMPLES ...

For each window, CPU seconds of one more sample, and the memory that the sampler took; all windows in turns.
Standard output: one line of JSON, ``Filled``.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import time

import msgspec

from bench.stage import Turns, compile_kernels, memory_bytes, new_name, sampler_here
from shm_monitor.config.resource import ResourceConfig

INTERVAL_NS = 10_000_000
TURNS, SAMPLES_A_TURN = 30, 20


class Filled(msgspec.Struct, frozen=True):
    """For each window: CPU seconds of one sample, medians over the turns, and bytes of the sampler with its ring."""

    sample_seconds: list[float]
    resident_bytes: list[int]


def main(arguments: list[str]) -> int:
    """Measure; return the exit status."""
    if arguments[0] != "never":
        compile_kernels()
    with contextlib.ExitStack() as stack:
        samplers, sizes = [], []
        for count in (10, *map(int, arguments[1:])):  # the first one brings what all of them share
            before = memory_bytes(os.getpid(), "VmRSS")
            name, clock = stack.enter_context(new_name()), Turns(INTERVAL_NS)
            period = count * INTERVAL_NS / 1e9
            config = ResourceConfig(name=name, check_interval=0.01, observation_period=period, history_seconds=period)
            sampler = stack.enter_context(sampler_here(config, only=("memory", "network"), clock=clock))
            samplers.append(clock.before(sampler.sample))
            for _ in range(count + 10):
                samplers[-1]()
            sizes.append(memory_bytes(os.getpid(), "VmRSS") - before)
        seen: list[list[float]] = []
        for _ in range(TURNS):
            seen.append([])
            for sample in samplers[1:]:
                began = time.process_time()
                for _ in range(SAMPLES_A_TURN):
                    sample()
                seen[-1].append((time.process_time() - began) / SAMPLES_A_TURN)
    seconds = [statistics.median(column) for column in zip(*seen, strict=True)]
    print(msgspec.json.encode(Filled(seconds, sizes[1:])).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
