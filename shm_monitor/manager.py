"""ResourceManager: a sampler for this program and its workers, started if none runs, and the reader to ask it."""

from __future__ import annotations

import os
import time
import weakref
from typing import TYPE_CHECKING

from shm_monitor.config.resource import ResourceConfig
from shm_monitor.errors import SamplerError, SegmentError
from shm_monitor.segment import names
from shm_monitor.segment.status import LIVE
from shm_monitor.supervision.handshake import Order
from shm_monitor.supervision.shared_sampler import SharedSampler
from shm_monitor.supervision.supervisor import START_SECONDS
from shm_monitor.worker.attaching import attach
from shm_monitor.worker.attachment import ATTACH_POLL_SECONDS, Attachment
from shm_monitor.worker.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType
    from typing import ParamSpec, Self, TypeVar

    from shm_monitor.schema import Level
    from shm_monitor.segment.status import Status
    from shm_monitor.segment.view import View
    from shm_monitor.snapshot.structs import Snapshot
    from shm_monitor.worker.episode import Episode
    from shm_monitor.worker.explanation import Explanation
    from shm_monitor.worker.history import History
    from shm_monitor.worker.limits import Headroom
    from shm_monitor.worker.outlook import Outlook
    from shm_monitor.worker.presence import Request

    P = ParamSpec("P")
    R = TypeVar("R")

LOOK_SECONDS = 2.0  # how long to wait for somebody else's sampler before trying to start one again
CLAIM_SECONDS = 10.0  # and before starting one although somebody else seems to be about to
FORCE_CLOCK_VARIABLE = "SHM_MONITOR_FORCE_CLOCK"  # "1": do without the kernel's death mark, to try the fallback


class ResourceManager:
    """Start a sampler if none is live under the name, else attach to the one that is; ask it as a ``Reader`` is asked.

    The sampler lives as long as the process that owns it: its end, SIGKILL too, ends the sampler, and one of the other
    managers of that name starts the next and owns it, within 2 s (the history begins anew). In a forked child the
    manager is just a reader and stops nothing. A context manager; ``close`` stops only what it owns.

    While it is open its sampler is the default: ``attach()`` without a name, and all that takes a ``reader=`` and gets
    none, ask it, in this process and in those that it starts, for it sets ``SHM_MONITOR_NAME``. Of several the newest
    open one is the default; ``close()`` brings back the one before, at last what the environment said. A forked child
    keeps the default, and what it closes changes the default of no other process. A forkserver that ran before the
    manager was made does not know of it: pass the name.

    Attributes:
        config: the settings in force for a sampler that this manager starts.
        reader: what answers.
        should_prune: ``should_prune() -> bool``, the reader's own: shed work now?
    """

    def __init__(self, config: ResourceConfig | None = None, *, watch: Iterable[str] | None = None) -> None:
        """Have a sampler run and its first sample readable.

        Args:
            config: None for ``ResourceConfig.load``, which obeys the environment and a ``.env`` file; a
                configuration that was built by its constructor obeys neither.
            watch: the limits that ``should_prune`` asks for; None for the overall verdict.

        Raises:
            SamplerError: the sampler could not start (one of its kinds).
            MissingDependencyError: the packages of the sampler are not installed.
        """
        self.config = ResourceConfig.load() if config is None else config
        force_clock = os.environ.get(FORCE_CLOCK_VARIABLE) == "1"
        self._sampler = SharedSampler(Order(config=self.config, owner_pid=os.getpid(), force_clock=force_clock))
        self.reader = self._live_reader(watch) if self.config.enabled else self._disabled_reader()
        self.should_prune: Callable[[], bool] = self.reader.should_prune
        names.announce(self.name)
        self._finalizer = weakref.finalize(self, _close, self._sampler, self.reader, os.getpid())
        _managers.add(self)

    @property
    def name(self) -> str:
        """The name of the sampler."""
        return self.config.name

    @property
    def check_interval(self) -> float:
        """Seconds between two samples of the sampler that answers."""
        return self.reader.status().interval_seconds or self.config.check_interval

    @property
    def owns_sampler(self) -> bool:
        """True when this manager started the sampler that runs now, and so will stop it."""
        return self._sampler.owns

    def level(self) -> Level:
        """Return how much is asked: OK, WARN, PRUNE or CRITICAL."""
        return self.reader.level()

    def reasons(self) -> tuple[str, ...]:
        """Return which reasons hold; see ``Reader.reasons``."""
        return self.reader.reasons()

    def explain(self) -> Explanation:
        """Return why; see ``Reader.explain``."""
        return self.reader.explain()

    def snapshot(self) -> Snapshot:
        """Return one consistent sample of everything; see ``Reader.snapshot``."""
        return self.reader.snapshot()

    def headroom(self) -> Headroom:
        """Return how much is left; see ``Reader.headroom``."""
        return self.reader.headroom()

    def shed_fraction(self) -> float:
        """Return how much to shed, 0 to 1; see ``Reader.shed_fraction``."""
        return self.reader.shed_fraction()

    def shed_bytes(self) -> int:
        """Return how many bytes to give back; see ``Reader.shed_bytes``."""
        return self.reader.shed_bytes()

    def present(self, weight: float = 1.0, *, sheddable_bytes: int | None = None) -> None:
        """Have this process seen by the sampler, and asked for its part alone; see ``Reader.present``."""
        self.reader.present(weight, sheddable_bytes=sheddable_bytes)
        self.should_prune = self.reader.should_prune

    def request(self) -> Request | None:
        """Return what this process is asked for, of those that are present; see ``Reader.request``."""
        return self.reader.request()

    def answer(self, request: Request, shed_bytes: int) -> None:
        """Say that *shed_bytes* have been given back for *request*."""
        self.reader.answer(request, shed_bytes)

    def episode(self) -> Episode | None:
        """Return the stretch of pressure that lasts now; see ``Reader.episode``."""
        return self.reader.episode()

    def on_change(self, callback: Callable[[Episode | None], object]) -> Callable[[], None]:
        """Call *callback* when an episode begins, changes its level or ends; see ``Reader.on_change``."""
        return self.reader.on_change(callback)

    def paused_while_pressed(self, max_wait: float | None = 60.0) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Return a decorator whose calls wait until nothing presses; see ``Reader.paused_while_pressed``."""
        return self.reader.paused_while_pressed(max_wait)

    def outlook(self) -> Outlook:
        """Return what is left in bytes, and for how long; see ``Reader.outlook``."""
        return self.reader.outlook()

    def history(
        self, metrics: Sequence[str] | None = None, *, seconds: float | None = None, since: int = 0, step: int = 1
    ) -> History:
        """Return the ring as columns; see ``Reader.history``."""
        return self.reader.history(metrics, seconds=seconds, since=since, step=step)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the answer changes; see ``Reader.wait``."""
        return self.reader.wait(timeout)

    async def changed(self, timeout: float | None = None) -> bool:
        """Await what ``wait`` waits for."""
        return await self.reader.changed(timeout)

    @property
    def flag_address(self) -> int:
        """The address of the hot byte, for compiled loops; see ``Reader.flag_address``."""
        return self.reader.flag_address

    def view(self) -> View:
        """Return the segment as it is now; see ``Reader.view``."""
        return self.reader.view()

    def status(self) -> Status:
        """Return the state of the sampler."""
        return self.reader.status()

    def age(self) -> float:
        """Return how many seconds ago the sampling loop last turned."""
        return self.reader.age()

    def close(self) -> None:
        """Stop the sampler if this manager owns it, within 2 s, and unmap the segment. Idempotent."""
        self._finalizer()

    def __enter__(self) -> Self:
        """Return the manager itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the manager."""
        self.close()

    def _live_reader(self, watch: Iterable[str] | None) -> Reader:
        """Return a reader of a sampler that lives; start one where there is none, or wait for one that starts."""
        wanted = None if watch is None else tuple([watch] if isinstance(watch, str) else watch)
        began = time.monotonic()
        reader = self._attached(wanted, seconds=0.0)
        try:
            while reader is None:
                waited_seconds = time.monotonic() - began
                if waited_seconds > START_SECONDS:
                    raise SamplerError(f"the sampler {self.name!r} does not stay alive; its log on stderr says why")
                if not self._sampler.owns:
                    self._sampler.start(unclaimed=waited_seconds > CLAIM_SECONDS)
                reader = self._attached(wanted, seconds=LOOK_SECONDS)
        except BaseException:
            self._sampler.stop()
            raise
        self._sampler.follow()
        return reader

    def _attached(self, watch: tuple[str, ...] | None, *, seconds: float) -> Reader | None:
        """Return a reader of a sampler that lives within *seconds*, or None."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                reader = attach(self.name, timeout=0.0, watch=watch, on_stale=self.config.on_stale)
                if reader.status().state == LIVE:
                    return reader
                reader.close()
            except SegmentError:
                pass  # absent, starting, or damaged: the sampler that starts next puts it right
            if time.monotonic() >= deadline:
                return None
            time.sleep(ATTACH_POLL_SECONDS)

    def _disabled_reader(self) -> Reader:
        attachment = Attachment(self.name, watch=None, on_stale="never")
        attachment.close()
        return Reader(attachment, required=False)

    def _after_fork_in_child(self) -> None:
        self._sampler.forget()


def _close(sampler: SharedSampler, reader: Reader, pid: int) -> None:
    names.withdraw(reader.name)
    reader.close()
    if os.getpid() == pid:
        sampler.stop()


def _forget_in_child() -> None:
    for manager in list(_managers):
        manager._after_fork_in_child()


_managers: weakref.WeakSet[ResourceManager] = weakref.WeakSet()
os.register_at_fork(after_in_child=_forget_in_child)
