"""Recorded /proc and /sys trees, and how to ask one collector on them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shm_monitor.collectors.files import Roots
from shm_monitor.schema import why_unknown

if TYPE_CHECKING:
    from shm_monitor.collectors.base import Collector

DATA = Path(__file__).parent / "data"
SECOND_NS = 1_000_000_000


class Clock:
    """Nanoseconds that a test moves by hand."""

    def __init__(self) -> None:
        self.now_ns = SECOND_NS

    def __call__(self) -> int:
        return self.now_ns

    def forward(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self.now_ns += round(seconds * SECOND_NS)


class Tree:
    """One recorded tree below a directory of the test: v1, v2 or hybrid, each file of which can be changed.

    tests/support/data/NAME.tree holds the files in the form of ``tail -n +1 FILES``: ``==> path <==`` and the content.
    """

    def __init__(self, name: str, top: Path) -> None:
        self.top = top
        self.clock = Clock()
        self.roots = Roots(str(top / "proc"), str(top / "sys"))
        for part in ("\n" + (DATA / f"{name}.tree").read_text()).split("\n==> ")[1:]:
            path, _, text = part.partition(" <==")
            self.write(path, text.strip("\n") + "\n")

    def write(self, path: str, text: str) -> None:
        """Write *text* to the file *path* of the tree."""
        file = self.top / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def replace(self, path: str, old: str, new: str) -> None:
        """Change *old* to *new* in the file *path*, where it must be."""
        text = (self.top / path).read_text()
        assert old in text
        self.write(path, text.replace(old, new))

    def remove(self, path: str) -> None:
        """Remove the file *path* of the tree."""
        (self.top / path).unlink()


def sample(collector: Collector) -> dict[str, float | str]:
    """Return what *collector* reads by name; an unknown reading is its reason."""
    out = np.full(len(collector.metrics), -12345.0)
    collector.collect(out)
    return {
        metric.name: float(value) if value == value else why_unknown(float(value)).text
        for metric, value in zip(collector.metrics, out, strict=True)
    }


def readings(collector: Collector, *fields: str) -> tuple[object, ...]:
    """Return the readings of *fields* of the collector's group."""
    found = sample(collector)
    return tuple(found[f"{collector.metrics[0].group}.{field}"] for field in fields)


def ticks() -> list[int]:
    """Return the ticks of the first line of /proc/stat, guest left out."""
    return [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]


def is_root() -> bool:
    """Say whether the test may make cgroups and network namespaces."""
    return os.geteuid() == 0
