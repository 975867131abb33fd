"""PyTorch, Lightning and transformers train on while a neighbour takes 440 MB of their 1.1 GB."""

from __future__ import annotations

import atexit
import functools
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.survival import stage
from bench.survival.scenario import Contender, Measured, Run, Scenario, Stored

GROUP_MB = 1100
NEIGHBOUR_MB, MB_PER_SECOND, BEGIN_SECONDS = 440, 100, 3.0  # when the first steps have been taken
JOBS = ("torch", "lightning", "transformers")
UNDISTURBED_RUNS = 3
LONGEST_SECONDS = 300.0  # a run takes 14 s on an idle machine
MIB = 1 << 20


@functools.cache
def nursery() -> str:
    """Start the process that has the frameworks loaded, once; return where it is asked."""
    folder = tempfile.TemporaryDirectory()
    address = str(Path(folder.name) / "nursery")
    process = subprocess.Popen(
        stage.module("bench.survival.nursery", address), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        sys.exit("the frameworks are not installed here; try: make test-torch, then .venv-torch/bin/python")

    def end() -> None:
        process.communicate("")
        folder.cleanup()

    atexit.register(end)
    return address


def run(job: str, size_of: str, *, with_neighbour: bool = True) -> Run:
    """Train once in a cgroup of its own."""
    command = stage.module("bench.survival.nursery", nursery(), job, size_of)
    beside = [stage.module(__name__)] if with_neighbour else []
    return stage.run(command, group_mb=GROUP_MB, beside=beside, longest_seconds=LONGEST_SECONDS)


def grow() -> None:
    """Be the neighbour: grow, and stay."""
    held: list[bytes] = []
    began = time.monotonic() + BEGIN_SECONDS
    while True:
        wanted = min((time.monotonic() - began) * MB_PER_SECOND, NEIGHBOUR_MB)
        while len(held) < wanted:
            held.append(b"\1" * MIB)
        time.sleep(0.01)


def contenders() -> Iterator[Contender]:
    """Yield three ways for each framework."""
    for job in JOBS:
        alone = functools.partial(run, job, "plain", with_neighbour=False)
        yield Contender(f"{job}, whole batches, undisturbed", alone, "other", job, UNDISTURBED_RUNS)
        yield Contender(f"{job}, whole batches", functools.partial(run, job, "plain"), "plain", job)
        yield Contender(f"{job}, governed", functools.partial(run, job, "governor"), "ours", job)


def lines(stored: Stored) -> list[str]:
    """Return the table: the losses differ in their last digits, so it says by how much."""
    head = ["| | finished | median time | loss | differs at most by |", "|---|---:|---:|---:|---:|"]
    return head + [_row(one, _undisturbed(stored, one.group)) for one in stored.measured if one.runs]


def _undisturbed(stored: Stored, group: str) -> float:
    losses = [
        float(run.result)
        for one in stored.measured
        if one.group == group and one.kind == "other"
        for run in one.finished
    ]
    return statistics.median(losses) if losses else math.nan


def _row(one: Measured, undisturbed: float) -> str:
    finished = f"| {one.label} | {len(one.finished)} of {len(one.runs)} |"
    if not one.finished:
        return f"{finished} - | - | - |"
    losses = [float(run.result) for run in one.finished]
    differs = max(abs(loss / undisturbed - 1) for loss in losses)
    return f"{finished} {one.median():.1f} s | {statistics.median(losses):.6f} | {differs:.1e} |"


SCENARIO = Scenario(
    order=5,
    title="PyTorch, Lightning and transformers",
    text=f"""
Eight steps in a cgroup of {GROUP_MB} MB, on batches that take 0.8 GB and come one each 1.25 s, while a neighbour in it
grows by {NEIGHBOUR_MB} MB at {MB_PER_SECOND} MB/s and stays. Governed is `MicroBatch.accumulate` in the loop of
PyTorch, `accumulate` in a Lightning module with manual optimization beside `PressureCallback`, and `MicroBatchMixin`
with `PressureCallback` for the Trainer of transformers (a GPT-2 with a vocabulary of 8192, whose logits are most of
its memory). The loss is that of the last step, for transformers the mean of all, and *differs* is relative to the
undisturbed one. On the CPU.""",
    contenders=tuple(contenders()),
    lines=lines,
)

if __name__ == "__main__":
    grow()
