"""End the streams when the server is asked to stop: it would wait for them for ever.

A server handles its signals itself; here they are only heard first. That works under any server that uses
``signal``, as uvicorn does, and needs no change to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shm_monitor_api.events import EventStream

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Handler = Callable[[int, FrameType | None], object]


@contextlib.asynccontextmanager
async def while_serving(stream: EventStream) -> AsyncIterator[None]:
    """Let clients listen to *stream* until the server stops or is told to."""
    stream.start()
    with _heard_first(stream):
        yield
    stream.stop()


@contextlib.contextmanager
def _heard_first(stream: EventStream) -> Iterator[None]:
    """Stop *stream* at a stop signal, before the server's own handler runs; a thread has no signals to hear."""
    found: dict[signal.Signals, Handler] = {}
    if threading.current_thread() is threading.main_thread():
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            before = signal.getsignal(number)
            if callable(before):
                found[number] = before
                signal.signal(number, _stopping(stream, loop, before))
    try:
        yield
    finally:
        for number, before in found.items():
            signal.signal(number, before)


def _stopping(stream: EventStream, loop: asyncio.AbstractEventLoop, then: Handler) -> Handler:
    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stream.stop)
        then(number, frame)

    return handle
