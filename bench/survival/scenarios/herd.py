"""Eight caches in one cgroup: who gives back how much, and what it costs."""

from __future__ import annotations

import statistics
from functools import partial

from bench.survival.cache import BLOCK_BYTES, KEYS
from bench.survival.herd import GROUP_MB, SECONDS, run
from bench.survival.scenario import Contender, Measured, Run, Scenario, Stored
from bench.survival.stage import MIB

CACHES = 8
ORACLE = "oracle"
WORTH_MB = KEYS * BLOCK_BYTES // MIB
COLUMNS = "| | killed | rounds | over | asked | given | given / over | usage after a round | within | peak | work |"
ALIGNED = "|---|---:|---:|---:|---:|---:|---:|---|---:|---:|---:|"


def _lines(stored: Stored) -> list[str]:
    """Return the table: medians of the runs, but the worst of usage after a round, of the killed and of the peak."""
    oracle = next((one for one in stored.measured if one.label == ORACLE), Measured(ORACLE, "other"))
    hits = _median(oracle.runs, "hits")
    return [COLUMNS, ALIGNED, *(_row(one, hits) for one in stored.measured if one.runs)]


def _row(one: Measured, oracle_hits: float) -> str:
    runs = one.runs
    killed = sum(run.numbers["killed"] for run in runs)
    work = f"{100 * _median(runs, 'hits') / oracle_hits:.0f} %" if oracle_hits else "-"
    peak = f"{100 * max(run.numbers['peak'] for run in runs):.0f} %"
    if not any(run.numbers["rounds"] for run in runs):
        return f"| {one.label} | {killed:.0f} | - | - | - | - | - | - | - | {peak} | {work} |"
    deficit, asked, given = (_median(runs, f"{name}_mb") for name in ("deficit", "asked", "given"))
    rounds, within = (sum(run.numbers[name] for run in runs) for name in ("rounds", "within"))
    met = [run for run in runs if run.numbers["rounds"]]
    least, most = min(run.numbers["after_least"] for run in met), max(run.numbers["after_most"] for run in met)
    sizes = f"{deficit:.0f} MB | {asked:.0f} MB | {given:.0f} MB | {given / max(deficit, 1.0):.2f}"
    after = f"{least:.2f} to {most:.2f} | {within:.0f} of {rounds:.0f}"
    return f"| {one.label} | {killed:.0f} | {_median(runs, 'rounds'):.0f} | {sizes} | {after} | {peak} | {work} |"


def _median(runs: list[Run], name: str) -> float:
    return statistics.median(run.numbers[name] for run in runs) if runs else 0.0


PRESENTED = ("presented",) * CACHES
SCENARIO = Scenario(
    order=4,
    title="A herd",
    text=f"""
{CACHES} caches in {GROUP_MB:,} MB for {SECONDS:.0f} s, each asked for random keys of {WORTH_MB} MB in all: a hit
is work, a miss is filled in, 52 MB a second together at the target. The sampler has the default settings (1 Hz,
and memory more often while it rises). The oracle's caches know which part of the target is their own, and never
ask. *Over* is usage less target when a round began, all rounds together; *within* counts the rounds that left
usage between 0.85 and 1.00 of the target. *Told with all* is not presented: each gives back what is too much, once
per episode.""",
    contenders=(
        Contender(ORACLE, partial(run, ("oracle",) * CACHES), "other"),
        Contender("presented", partial(run, PRESENTED), "ours"),
        Contender("presented, one killed in a round", partial(run, PRESENTED, kill=True, is_drawn=False), "ours"),
        Contender(
            "presented, one ignores requests", partial(run, (*PRESENTED[1:], "ignoring"), is_drawn=False), "ours"
        ),
        Contender("presented, one joins late", partial(run, PRESENTED[1:], join=True, is_drawn=False), "ours"),
        Contender("told with all", partial(run, ("all",) * CACHES), "plain"),
        Contender("plain", partial(run, ("plain",) * CACHES), "plain", runs=1),
    ),
    lines=_lines,
)
