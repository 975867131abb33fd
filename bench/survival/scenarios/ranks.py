"""Four ranks that act at the same step, or not at all, while the level flips 300 times."""

from __future__ import annotations

import functools
from typing import Final

from bench.stage import new_name
from bench.survival.scenario import Contender, Run, Scenario, Stored
from tests.support import rank_process
from tests.support.publishing import Bench

STEPS: Final = {0.0003: 3000, 0.0025: 3000, 0.016: 1800}  # as many as 300 crossings take
EVERY, DEFAULT_EVERY = 2, 8
DEFAULT_STEPS = 400
HEAD = "| step of the slowest rank | rounds | crossings | splits | own flags differed | a question | of a plain step |"


def agree(step_seconds: float, every: int, steps: int) -> Run:
    """Have four processes ask at each step; two of them take twice as long for one."""
    with new_name() as name:
        bench = Bench(name)
        try:
            found = rank_process.agree(bench, steps=steps, step_seconds=step_seconds, every=every)
        finally:
            bench.close()
    numbers = {
        "crossings": float(rank_process.crossings(found)),
        "splits": float(rank_process.splits(found)),
        "differences": rank_process.differences(found) / steps,
        "asking_seconds": min(one[3] for one in found),
        "step_seconds": 2 * step_seconds,
    }
    return Run("finished", "", 0.0, [], numbers)


def lines(stored: Stored) -> list[str]:
    """Return the table: a question costs what it costs the slowest rank, for which nobody waits."""
    table = [HEAD, "|---:|---|---:|---:|---:|---:|---:|"]
    for one in stored.measured:
        for run in one.runs:
            got = run.numbers
            share = got["asking_seconds"] / got["step_seconds"]
            table.append(
                f"| {1e3 * got['step_seconds']:g} ms | {one.group} | {got['crossings']:.0f} | {got['splits']:.0f} "
                f"| {100 * got['differences']:.0f} % | {1e6 * got['asking_seconds']:.0f} us | {100 * share:.2g} % |"
            )
    return table


def _contender(step_seconds: float, every: int, steps: int) -> Contender:
    run = functools.partial(agree, step_seconds, every, steps)
    return Contender(f"{1e3 * step_seconds:g} ms, every {every}", run, "ours", f"every {every} steps", 1)


SCENARIO = Scenario(
    order=6,
    title="Ranks",
    text="""
Four processes ask an `AgreedVerdict` over `HostRanks` at each step of 0.3, 2.5 or 16 ms, two of them at half that pace,
while the level flips. A split is a step in which two ranks were told different things: one of them would wait for ever
in a collective. Beside it: in how many steps the flags of their own differed, and what a question costs per step.""",
    contenders=(
        *(_contender(step, EVERY, steps) for step, steps in STEPS.items()),
        *(_contender(step, DEFAULT_EVERY, DEFAULT_STEPS) for step in STEPS),
    ),
    lines=lines,
)
