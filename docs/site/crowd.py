"""``python -m docs.site.crowd NAME COUNT``: workers that present themselves to a sampler, until standard input ends."""

from __future__ import annotations

import os
import sys

import shm_monitor as sm


def present(name: str, megabytes: int) -> None:
    """Hold so much in a process of its own, until nobody has the writing end of its standard input."""
    if os.fork() == 0:
        reader = sm.attach(name, watch=["memory"], required=False, present=True)
        held = bytearray(b"\1") * (megabytes * 2**20)
        os.read(0, 1)
        os._exit(len(held) == 0 and reader.should_prune())


if __name__ == "__main__":
    count = int(sys.argv[2])
    for number in range(count):
        present(sys.argv[1], 1 + number % 9)
    for _ in range(count):
        os.wait()
