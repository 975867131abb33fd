"""What was promised, as the table of budgets shows it: the limit, what it was before, and why where it is missed.

A reason stands beside its budget and is printed only while a run misses it. Numbers in a reason were measured by hand,
those of libraries by bench/bench_memory.py.
"""

from __future__ import annotations

from bench.results import Budget

MB = 2.0**20

CALM = Budget(
    1.5,
    of_ratio=True,
    what="`should_prune()`, calm",
    before="1.57 x an empty function",
    reason="One load of a byte through a closure, and its test; runs spread from 1.51 to 1.57.",
)
WATCHED = Budget(
    2.2,
    of_ratio=True,
    what="three watched limits, calm",
    before="3.9 x an empty function",
)
PRESSED = Budget(6.0, of_ratio=True, what="pressed or dead, kernel marks", before="85 to 89 x an empty function")
HOW_MUCH = Budget(
    8.0, of_ratio=True, what="`shed_fraction()`, `level()`, `reasons()`", before="18 x `should_prune()` pressed"
)
SNAPSHOT = Budget(100e-6, what="`snapshot()`", before="30 us, by machinery of 580 lines")
EXPLAIN = Budget(
    40e-6,
    what="`explain()`",
    before="170 us",
    reason="The track of a new sample is parsed once, asked again it costs a quarter.",
)
ATTACH = Budget(
    8e-3,
    what="`attach()` in a fresh process, CPU",
    before="11.7 ms",
    reason="On a busy machine a process that starts finds cold caches.",
)
SAMPLER_INTERPRETED = Budget(
    22 * MB,
    what="sampler at 1 Hz, private memory, interpreted",
    before="60 MB",
    reason="numpy, psutil and msgspec are 15 MB before any of our code runs, nvidia-ml-py is 3 where a driver is; "
    "the rest are our modules, the threads' stacks and the rings of the decision.",
)
SAMPLER_COMPILED = Budget(
    75 * MB,
    what="sampler at 1 Hz, private memory, compiled",
    before="60 MB (80 while it compiles)",
    reason="`import numba` is 40 MB before the first kernel; 54 more once it has to compile, and clean pages of LLVM's "
    "library beside that. At 1 Hz the kernels run interpreted by default and numba is never loaded.",
)
SUPERVISOR = Budget(
    9 * MB,
    what="`shm-monitor run` itself, private memory",
    before="12 MB",
    reason="subprocess, signal, logging and msgspec are 8 MB before any of our code runs; the rest are the command "
    "line, the settings and the keeper of processes.",
)
API = Budget(40 * MB, what="API, private memory", before="23 MB")
SUPERVISOR_AND_API = Budget(48 * MB, what="supervisor and API, private memory", before="34 MB")
FLOOD_MEDIAN = Budget(0.5, what="`/healthz` during a flood, median", before="3 ms")
FLOOD_WORST = Budget(
    1.0,
    what="`/healthz` during a flood, at worst",
    before="0.16 s",
    reason="Each of 200 clients has one request answered per turn of the loop, and a busy machine makes a turn longer; "
    "a reverse proxy holds floods back.",
)
FLOOD_BYTES = Budget(40 * MB, what="memory that a flood takes", before="9 MB")
CPU_COMPILED = Budget(
    0.15,
    what="sampler at 1 Hz, CPU, compiled",
    before="0.19 %",
    reason="A sample once a second finds the caches of the CPU cold, which costs more than the kernels do.",
)
CPU_INTERPRETED = Budget(
    0.5,
    what="sampler at 1 Hz, CPU, interpreted",
    before="not measured",
    reason="The more others run, the colder the caches that a sample finds.",
)
AGED_DEATH = Budget(
    1e-3,
    what="SIGKILL of an aged sampler to the changed answer",
    before="5 to 12 ms",
    reason="On a machine whose cores are all busy the kernel first has to find time for the killed process.",
)
