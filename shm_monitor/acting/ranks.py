"""One verdict for all ranks of a job: every rank acts at the same step, or none does.

Two ranks that ask in the same step differ in 54 % of the crossings at 0.3 ms a step, and a collective under
``if should_prune()`` then waits for ever. So the levels are reduced to their maximum every few steps, asynchronously:
the result is adopted one round later, at the same step by every rank, however late it came.
"""

from __future__ import annotations

import logging
import time
from collections import deque

from shm_monitor.errors import MonitorError
from shm_monitor.forks import importing
from shm_monitor.light import TYPE_CHECKING
from shm_monitor.schema import Level

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import BaseContext
    from typing import Any, Protocol

    from shm_monitor.worker.reader import Reader

    Pending = Callable[[float], int]

    class Ranks(Protocol):
        """What is asked of a backend."""

        def allreduce_max(self, byte: int, /) -> int | Pending:
            """Begin to reduce *byte* over all ranks; return the maximum, or a function that returns it.

            The function waits at most so many seconds, raises TimeoutError after them, and may then be called again.
            """


_log = logging.getLogger("shm_monitor")

POLL_SECONDS = 0.0002  # a fiftieth of a step of 10 ms; a result is usually there before it is asked for
WINDOW = 64  # rounds that a rank may be behind


class AgreedVerdict:
    """The level that all ranks agree on, for the step that they are in: ``if verdict(step) >= Level.PRUNE: ...``.

    Every rank must ask at every step, with the same numbers of steps. A rank that does not come in *timeout* seconds
    leaves the others with what was agreed last; that is logged, and they do not wait again until it has caught up.

    Attributes:
        level: what is agreed now.
    """

    def __init__(self, reader: Reader, group: Any = None, *, every: int = 8, timeout: float = 30.0) -> None:
        """Agree over *group*.

        Args:
            reader: of this rank; a node's own pressure counts for all.
            group: a process group of ``torch.distributed``, one rank of ``HostRanks``, anything with
                ``allreduce_max(byte)``; None for torch's default group where one is initialised, else for one rank.
            every: steps between two rounds; what is agreed is at most two rounds old.
            timeout: seconds to wait for a round.

        Raises:
            ValueError: *every* is not positive.
        """
        if every < 1:
            raise ValueError(f"every={every}; allowed is 1 or more")
        self.level = Level.OK
        self._reader = reader
        self._ranks = ranks_of(group)
        self._every = every
        self._timeout = timeout
        self._pending: deque[int | Pending] = deque()
        self._is_late = False

    def __call__(self, step: int) -> Level:
        """Return the level for *step*, the same on all ranks."""
        if step % self._every == 0:
            self._adopt()
            self._pending.append(self._ranks.allreduce_max(int(self._own_level())))
        return self.level

    def close(self) -> None:
        """Wait for the round that is under way, so that no rank leaves while another still reduces."""
        self._adopt()

    def _own_level(self) -> Level:
        """Return the level of this rank; it takes part in each round, also where its reader raises."""
        try:
            return self._reader.level()
        except MonitorError:
            return Level.OK

    def _adopt(self) -> None:
        deadline = time.monotonic() + (0.0 if self._is_late else self._timeout)
        while self._pending:
            first = self._pending[0]
            try:
                byte = first if isinstance(first, int) else first(max(deadline - time.monotonic(), 0.0))
            except TimeoutError:
                if not self._is_late:
                    _log.warning(
                        "ranks did not agree in %g s; going on with %s", self._timeout, self.level.name.lower()
                    )
                self._is_late = True
                return
            self.level = Level(byte)
            self._pending.popleft()
        self._is_late = False


class HostRanks:
    """The ranks of one host that ``multiprocessing`` started: a table of words of their own, no lock, no collective.

        ranks = sm.HostRanks(4)  # in the parent
        Process(target=train, args=(ranks.rank(0),)).start()  # and so on
        verdict = sm.AgreedVerdict(sm.attach(), rank)  # in each child

    A word is ``round:56 | byte:8`` and stored at once; a round is complete when each rank's word for it is there.
    """

    def __init__(self, count: int, context: BaseContext | None = None) -> None:
        """Make a table for *count* ranks; pass it on only as an argument of a process, as any shared value."""
        with importing:
            import multiprocessing

        if count < 1:
            raise ValueError(f"count={count}; allowed is 1 or more ranks")
        self.count = count
        self._table: Any = (context or multiprocessing.get_context()).RawArray("Q", count * WINDOW)

    def rank(self, number: int) -> HostRank:
        """Return what rank *number*, from 0 on, gives to its ``AgreedVerdict``."""
        if not 0 <= number < self.count:
            raise ValueError(f"rank {number}; allowed is 0 to {self.count - 1}")
        return HostRank(self._table, self.count, number)


class HostRank:
    """One rank of ``HostRanks``."""

    def __init__(self, table: Any, count: int, number: int) -> None:
        """Write the words of rank *number* in *table*."""
        self._table = table
        self._count = count
        self._number = number
        self._round = 0

    def allreduce_max(self, byte: int) -> Pending:
        """Say *byte* for the next round; return the function that waits for the others."""
        self._round += 1
        mine, place = self._round, self._round % WINDOW * self._count
        self._table[place + self._number] = mine << 8 | byte

        def wait(seconds: float) -> int:
            deadline = time.monotonic() + seconds
            while True:
                words: list[int] = self._table[place : place + self._count]
                if all(word >> 8 == mine for word in words):
                    return max(word & 0xFF for word in words)
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"round {mine}: {sum(word >> 8 != mine for word in words)} ranks are missing")
                time.sleep(POLL_SECONDS)

        return wait


class TorchRanks:
    """The ranks of a process group of ``torch.distributed``; costs one asynchronous all-reduce of a byte per round."""

    def __init__(self, group: Any = None) -> None:
        """Reduce over *group*, None for the default one."""
        with importing:
            import torch
            from torch import distributed

        self._distributed = distributed
        self._group = group
        on_gpu = distributed.get_backend(group) == "nccl"
        self._device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
        self._tensor_of = torch.tensor
        self._uint8 = torch.uint8

    def allreduce_max(self, byte: int) -> Pending:
        """Launch the all-reduce of *byte*; return the function that waits for it."""
        tensor = self._tensor_of([byte], dtype=self._uint8, device=self._device)
        work = self._distributed.all_reduce(tensor, op=self._distributed.ReduceOp.MAX, group=self._group, async_op=True)

        def wait(seconds: float) -> int:
            deadline = time.monotonic() + seconds
            while not work.is_completed():  # not wait(timeout), which aborts the whole group
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"an all-reduce took more than {seconds:g} s")
                time.sleep(POLL_SECONDS)
            work.wait()
            return int(tensor.item())

        return wait


class _Alone:
    def allreduce_max(self, byte: int) -> int:
        return byte


def ranks_of(group: Any) -> Ranks:
    """Return the backend for *group*; torch is imported only where there is a group of its own, or it is in use."""
    with importing:
        import sys

    if hasattr(group, "allreduce_max"):
        ranks: Ranks = group
        return ranks
    if group is not None:
        return TorchRanks(group)
    distributed = sys.modules.get("torch.distributed")
    return TorchRanks() if distributed and distributed.is_available() and distributed.is_initialized() else _Alone()
