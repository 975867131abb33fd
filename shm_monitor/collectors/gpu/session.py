"""NVML open in this process, and opened again when it has gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

from shm_monitor.collectors.gpu.calls import Caller
from shm_monitor.collectors.gpu.nvml import TIMEOUT, Nvml, NvmlFault

T = TypeVar("T")

_FIRST_DELAY_SECONDS = 1.0
_LONGEST_DELAY_SECONDS = 30.0
_RESCAN_SECONDS = 300.0
"""How often NVML is opened again for a lost GPU while others work: after a reset the driver lists it anew, but opening
costs the others a sample where it is slow (1.5 s each without persistence mode)."""


class Session:
    """Opens NVML, and decides when to close and open it again; both happen in a thread of their own.

    NVML goes when the driver is unloaded or updated, and in a container when ``systemctl daemon-reload`` takes the
    device files away (NVIDIA/nvidia-container-toolkit#48); only opening it anew brings it back.

    Args:
        nvml: not yet initialised.
        clock: seconds; times the attempts. Waiting for a thread uses real time.
    """

    def __init__(self, nvml: Nvml, *, clock: Callable[[], float]) -> None:
        self.nvml = nvml
        self.generation = 0
        self._clock = clock
        self._opener: Caller[object] = Caller("shm-monitor-nvml")
        self._opens = 0
        self._reopening: Future[object] | None = None
        self._delay = _FIRST_DELAY_SECONDS
        self._retry_at: float | None = None
        self._opened_at = clock()

    def open(self, then: Callable[[], T], *, timeout_seconds: float) -> T:
        """Open NVML and return what *then* returns, called in the same thread.

        Raises:
            NvmlFault: NVML is not here, or has not answered in *timeout_seconds*.
        """
        answer: list[T] = []

        def work() -> None:
            self._initialize()
            answer.append(then())

        future = self._opener.start(work)
        if future is not None:
            with suppress(TimeoutError):
                future.result(timeout_seconds)
                return answer[0]
        raise NvmlFault(TIMEOUT, "nvmlInit", f"no answer in {timeout_seconds:g} s: the driver hangs")

    def ready(self, deadline: float, *, in_flight: bool) -> bool:
        """Open NVML again if that is due, and return whether it can be asked now.

        Args:
            deadline: of ``time.monotonic``; an attempt that is not over by then goes on and makes this False.
            in_flight: a call of some device has not come back, so NVML must not be closed.
        """
        if self._reopening is None and self._retry_at is not None and self._clock() >= self._retry_at:
            self._reopening = self._opener.start(lambda: self._reopen(close_first=not in_flight))
        if self._reopening is None:
            return True
        try:
            self._reopening.exception(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            return False
        self._settle()
        return True

    def report(self, *, readable_count: int, lost_count: int) -> None:
        """Take note of a reading: with none readable the attempts begin, 1, 2, 4 ... 30 s apart."""
        if lost_count == 0:
            self._retry_at, self._delay = None, _FIRST_DELAY_SECONDS
        elif readable_count > 0:
            self._retry_at, self._delay = self._opened_at + _RESCAN_SECONDS, _FIRST_DELAY_SECONDS
        elif self._retry_at is None or self._retry_at > self._clock() + _LONGEST_DELAY_SECONDS:
            self._retry_at = self._clock() + self._delay

    def close(self, timeout_seconds: float, *, in_flight: bool) -> None:
        """Close NVML, unless a call in it hangs: then it ends with the process."""
        future = None if in_flight else self._opener.start(self._shutdown)
        if future is not None:
            with suppress(TimeoutError):
                future.exception(timeout_seconds)
        self._opener.close()

    def _initialize(self) -> None:
        self.nvml.initialize()
        self._opens += 1

    def _reopen(self, *, close_first: bool) -> None:
        if close_first:
            self._shutdown()
        self._initialize()

    def _shutdown(self) -> None:
        while self._opens:
            self._opens -= 1
            with suppress(NvmlFault):  # it may have gone by itself
                self.nvml.shutdown()

    def _settle(self) -> None:
        """Count the attempt: handles of before are void, and the next attempt is further away."""
        self._reopening = None
        self.generation += 1
        self._opened_at = self._clock()
        self._delay = min(2 * self._delay, _LONGEST_DELAY_SECONDS)
        self._retry_at = self._opened_at + self._delay
