"""docs/survival.md and its plots, from what is stored in ``results/``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench.survival.plot import usage_plot
from bench.survival.scenario import Measured, Scenario, Stored, scenarios

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[2] / "docs"
INTRO = """# Survival

Does a job that acts on pressure finish where a plain one is killed, and at what price? Written by
`python -m bench.survival`: real memory cgroups without swap, real processes, a real sampler at 10 Hz beside them. Each
section says when and on what its runs were made. *Work* is what was done in the time in which the best fixed size does
100 %; that one was found by search among those that never failed, which no job can do beforehand."""
HEAD = "| | finished | otherwise | median time | work | 5 to 95 % of runs | same result |"
RULE = "|---|---:|---|---:|---:|---:|---|"


def read(name: str) -> Stored | None:
    """Return what is stored of the scenario *name*; None where it has not been run."""
    path = RESULTS / f"{name}.json"
    return msgspec.json.decode(path.read_bytes(), type=Stored) if path.exists() else None


def store(name: str, stored: Stored) -> None:
    """Keep *stored* for the scenario *name*, at once or not at all; without traces but for the first of each kind."""
    for one in stored.measured:
        one.runs[1:] = [msgspec.structs.replace(run, trace=[]) for run in one.runs[1:]]
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    fresh = path.with_suffix(".new")
    lines = b",\n".join(msgspec.json.encode(one) for one in stored.measured)
    fresh.write_bytes(b'{"machine":%b,"measured":[\n%b\n]}\n' % (msgspec.json.encode(stored.machine), lines))
    fresh.replace(path)


def write_page(docs: Path = DOCS) -> None:
    """Write the page of everything that is stored, and its plots, below *docs*."""
    parts = [INTRO]
    for name, scenario in scenarios().items():
        stored = read(name)
        if stored is not None:
            parts += list(_section(name, scenario, stored, docs))
    (docs / "survival.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _section(name: str, scenario: Scenario, stored: Stored, docs: Path) -> Iterator[str]:
    yield f"## {scenario.title}"
    yield scenario.text.strip()
    yield f"{stored.machine}."
    if scenario.lines is not None:
        yield "\n".join(scenario.lines(stored))
    else:
        yield "\n".join([HEAD, RULE, *rows(stored, scenario.cost)])
    for group in dict.fromkeys(one.group for one in stored.measured):
        shown = [one for one in stored.measured if one.group == group and one.runs and one.runs[0].trace]
        drawn = usage_plot(f"{scenario.title}: {group}".removesuffix(": "), shown)
        if drawn:
            file = f"{name}-{group.split()[0]}.svg" if group else f"{name}.svg"
            (docs / "survival").mkdir(exist_ok=True)
            (docs / "survival" / file).write_text(drawn, encoding="utf-8")
            yield f"![memory of the cgroup over time](survival/{file})"


def rows(stored: Stored, cost: str = "") -> Iterator[str]:
    """Yield the lines of the table: all contenders but the fixed sizes, of which only the best one of each group."""
    for one in stored.measured:
        best = stored.best(one.group, cost)
        if one.runs and (one.kind != "fixed" or one is best):
            yield f"| {' | '.join(_cells(one, best, cost))} |"


def _cells(one: Measured, best: Measured | None, cost: str) -> Iterator[str]:
    yield f"best fixed: {one.label}" if one.kind == "fixed" else one.label
    yield f"{len(one.finished)} of {len(one.runs)}"
    others = [run.ended for run in one.runs if run.ended != "finished"]
    yield ", ".join(f"{others.count(how)} {how}" for how in dict.fromkeys(others)) or "-"
    if not one.finished:
        yield from ("-",) * 4
        return
    yield f"{one.median():.1f} s"
    yield from _work(one, best, cost)
    results = {run.result for run in one.finished} | ({run.result for run in best.finished} if best else set())
    yield "yes" if len(results) == 1 else "**no**"


def _work(one: Measured, best: Measured | None, cost: str) -> Iterator[str]:
    """Yield the work in percent of the best fixed size: of the median run, and of the worst and best without 5 %."""
    if best is None:
        yield from ("-",) * 2
        return
    whole = 100 * best.median(cost)
    costs = sorted(run.numbers.get(cost, run.seconds) for run in one.finished)
    cut = len(costs) // 20
    yield f"{whole / one.median(cost):.0f} %"
    yield f"{whole / costs[-1 - cut]:.0f} to {whole / costs[cut]:.0f} %"
