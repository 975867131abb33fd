"""The same map on a plain pool, on Dask and on Ray, each alone and with ours in front of it."""

from __future__ import annotations

import functools
import importlib.util
import statistics
import tempfile

import msgspec

from bench.survival.peers import CONTAINER_MB, DASK_WORKERS, LEAK_MB, SLOTS, TASK_MB, TASK_SECONDS, TASKS
from bench.survival.scenario import Contender, Kind, Measured, Run, Scenario, Stored
from bench.survival.stage import module, run
from tests.support.cgroups import top_of

ROOM_FOR_RAY_MB = 4096
LONGEST_SECONDS = 300.0
# As in a container: what a process finds under /sys/fs/cgroup is its own group, which Dask and Ray read.
INSIDE = """
group=$(sed -n 's/^[0-9]*:memory://p; s/^0:://p' /proc/self/cgroup | head -1)
mount --bind {top}$group {top} && exec "$0" "$@"
"""
GROUPS = {"map": f"{TASKS} tasks of {TASK_MB} MB", "leak": f"the same, each leaves {LEAK_MB} MB behind"}
ROWS: tuple[tuple[str, str, str, Kind], ...] = (
    ("ProcessPoolExecutor", "pool", "plain", "plain"),
    ("Dask", "dask", "plain", "other"),
    ("Ray", "ray", "plain", "other"),
    ("BoundedExecutor on ProcessPoolExecutor", "pool", "ours", "ours"),
    ("BoundedExecutor on Dask, PressurePlugin", "dask", "ours", "ours"),
    ("BoundedExecutor on Ray (RayExecutor)", "ray", "ours", "ours"),
)


def once(framework: str, who: str, kind: str) -> Run:
    """Run the map once."""
    if importlib.util.find_spec({"dask": "distributed"}.get(framework, framework)) is None and framework != "pool":
        raise SystemExit(f'{framework} is not installed; try: pip install "shm-monitor[{framework}]"')
    group_mb = CONTAINER_MB + (idle_ray_mb() if framework == "ray" else 0)
    found = _inside(framework, who, kind, group_mb)
    ended = "broken" if found.ended == "finished" and found.numbers["done"] < TASKS else found.ended
    return msgspec.structs.replace(found, ended=ended, numbers={**found.numbers, "group_mb": float(group_mb)})


@functools.cache
def idle_ray_mb() -> int:
    """Return what Ray takes before it has anything to do: daemons, the driver, and a worker per slot."""
    return int(_inside("ray", "plain", "idle", ROOM_FOR_RAY_MB).numbers["idle"])


def _inside(framework: str, who: str, kind: str, group_mb: int) -> Run:
    top = top_of("memory")
    assert top is not None, "no memory cgroups here"
    with tempfile.TemporaryDirectory(prefix="peers-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        job = module("bench.survival.peers", framework, who, kind, directory)
        enter = ["unshare", "--mount", "sh", "-c", INSIDE.format(top=top[1])]
        environment = {"RAY_USAGE_STATS_ENABLED": "0"}
        return run([*enter, *job], group_mb=group_mb, environment=environment, longest_seconds=LONGEST_SECONDS)


HEAD = """| | runs in which all were done | tasks lost | run twice | median time | peak of the limit |
|---|---:|---:|---:|---:|---:|"""


def lines(stored: Stored) -> list[str]:
    """Return the lines of the section: a table for each kind of task."""
    found: list[str] = []
    for kind, title in GROUPS.items():
        measured = [one for one in stored.measured if one.group == kind and one.runs]
        found += [f"**{title}**", "", HEAD, *map(row, measured), "", ratio(measured), ""]
    return found[:-1]


def row(one: Measured) -> str:
    """Return the line of one contender."""
    lost = sum(TASKS - int(run.numbers.get("done", 0)) for run in one.runs)
    twice = sum(int(run.numbers.get("twice", 0)) for run in one.runs)
    whole = [run.seconds for run in one.runs if run.ended == "finished"]
    seconds = f"{statistics.median(whole):.1f} s" if whole else "-"
    peak = max((mb for run in one.runs for _, mb in run.trace), default=0.0)
    limit = int(one.runs[0].numbers["group_mb"])
    label = f"**{one.label.partition(': ')[2]}**" if one.kind == "ours" else one.label.partition(": ")[2]
    return f"| {label} | {len(whole)} of {len(one.runs)} | {lost} | {twice} | {seconds} | {peak:.0f} of {limit} MB |"


def ratio(measured: list[Measured]) -> str:
    """Say how long ours takes, over the better of the peers."""
    peers = [one.median() for one in measured if one.kind == "other" and one.finished]
    ours = [(one.median(), one.label.partition(": ")[2]) for one in measured if one.kind == "ours" and one.finished]
    if not peers:
        return "No peer came to an end."
    best = min(peers)
    return (
        "Over the better of Dask and Ray alone: " + ", ".join(f"{label} {own / best:.2f}" for own, label in ours) + "."
    )


SCENARIO = Scenario(
    order=5,
    title="Beside the peers on the same work",
    text=f"""
{TASKS} tasks that hold {TASK_MB} MB for {TASK_SECONDS:g} s, {SLOTS} at once where nobody minds, in a container of
{CONTAINER_MB} MB that sees its own limit; only {CONTAINER_MB // TASK_MB} would fit even if nothing else was there.
Processes are warm before the time begins. Dask: {DASK_WORKERS} workers of {SLOTS // DASK_WORKERS} threads that share
the container, its memory manager as it comes (spill at 60 and 70 %, pause at 80 %, terminate at 95 %). Ray: its memory
monitor as it comes (kills at 95 %, tries again for ever); its daemons and {SLOTS} idle workers alone take more than the
container, so both rows of Ray have what Ray takes idle on top of it. A task notes itself when
it begins: one that began twice was run twice.""",
    contenders=tuple(
        Contender(f"{kind}: {label}", functools.partial(once, framework, who, kind), what, kind)
        for kind in GROUPS
        for label, framework, who, what in ROWS
    ),
    lines=lines,
)
