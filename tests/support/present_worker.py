"""A worker that presents itself, holds memory, and does what it is told on standard input, a line each.

``python -m tests.support.present_worker NAME MB [LIMIT ...]``: it watches memory, these limits, or ``all``. Lines:
``ask`` prints what it is asked (a line of JSON), ``shed N`` gives N MB back, ``hold N`` takes N MB more, ``fork`` has a
child print its slot, ``quit``.
"""

from __future__ import annotations

import json
import os
import sys

import shm_monitor as sm

MB = 2**20


def filled(megabytes: int) -> list[bytearray]:
    """Return so many blocks of a megabyte, each page of them written."""
    return [bytearray(b"\1") * MB for _ in range(megabytes)]


def main(name: str, megabytes: int, watch: list[str]) -> None:
    """Serve standard input."""
    reader = sm.attach(name, timeout=30.0, watch=None if watch == ["all"] else watch, present=True)
    held = filled(megabytes)
    print(slot_of(reader), flush=True)
    for line in sys.stdin:
        verb, _, number = line.strip().partition(" ")
        if verb == "ask":
            request = reader.request()
            told = {
                "prune": reader.should_prune(),
                "level": reader.level().name,
                "request": None if request is None else request.size_bytes,
                "limit": None if request is None else request.limit,
                "round": None if request is None else request.round_number,
                "shed_bytes": reader.shed_bytes(),
                "text": str(reader.explain()),
            }
            print(json.dumps(told), flush=True)
        elif verb == "shed":
            request = reader.request()
            del held[: int(number)]
            if request is not None:
                reader.answer(request, int(number) * MB)
            print("done", flush=True)
        elif verb == "hold":
            held += filled(int(number))
            print("done", flush=True)
        elif verb == "fork":
            child = os.fork()
            if child == 0:
                print(slot_of(reader), flush=True)
                os._exit(0)
            os.waitpid(child, 0)
        elif verb == "close-any":
            os.close(os.open(f"/dev/shm/shm-monitor.{os.getuid()}/{name}~workers", os.O_RDONLY))
            print("done", flush=True)
        else:
            return


def slot_of(reader: sm.Reader) -> int:
    """Return the slot that *reader* has in this process; -1 for none."""
    presence = reader._attachment.presence
    return -1 if presence is None or presence.slot is None else presence.slot


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:] or ["memory"])
