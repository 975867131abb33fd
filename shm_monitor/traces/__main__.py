"""``python -m shm_monitor.traces``: answer questions of other settings, one per line of standard input, until its end.

A process of its own keeps numpy and the kernels out of the API, and dies with it: its input ends then.
"""

from __future__ import annotations

import contextlib
import os
import sys

import msgspec

from shm_monitor.errors import ConfigError, MonitorError, SegmentError, TraceError
from shm_monitor.traces.ring import ring_of, what_if
from shm_monitor.traces.what_if import Answer, Question, Refused
from shm_monitor.worker.attaching import attach

NICENESS = 10  # nobody waits for it as a worker waits for a core


def answer(question: Question) -> Answer:
    """Return what the ring of the sampler says to *question*, or why it says nothing."""
    try:
        with attach(question.name, timeout=0.0, scope="any") as reader:
            return Answer(found=what_if(ring_of(reader.view()), question.settings))
    except ConfigError as error:
        return Answer(refused=Refused(error.key, error.allowed))
    except (TraceError, SegmentError) as error:
        return Answer(refused=Refused("", str(error)))


def main() -> None:
    """Answer until nobody asks any more."""
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    decoder, encoder = msgspec.json.Decoder(Question), msgspec.json.Encoder()
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        for line in sys.stdin.buffer:
            try:
                found = answer(decoder.decode(line))
            except (msgspec.DecodeError, MonitorError) as error:
                found = Answer(refused=Refused("", str(error)))
            sys.stdout.buffer.write(encoder.encode(found) + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
