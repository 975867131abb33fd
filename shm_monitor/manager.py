"""ResourceManager: a reader that has a sampler run, for this program and its workers."""

from __future__ import annotations

import logging
import os
import time
import weakref
from typing import TYPE_CHECKING

import msgspec

from shm_monitor.config import in_force
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.errors import OtherConfigError, OtherMemoryError, SamplerError, SegmentError
from shm_monitor.forks import renew_in_child
from shm_monitor.segment import memory_identity, names
from shm_monitor.segment.status import LIVE
from shm_monitor.supervision.handshake import Order
from shm_monitor.supervision.shared_sampler import SharedSampler
from shm_monitor.supervision.supervisor import START_SECONDS
from shm_monitor.worker.attachment import ATTACH_POLL_SECONDS, Attachment
from shm_monitor.worker.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shm_monitor.worker.attachment import MemoryScope

_log = logging.getLogger("shm_monitor")

LOOK_SECONDS = 2.0  # how long to wait for somebody else's sampler before trying to start one again
CLAIM_SECONDS = 10.0  # and before starting one although somebody else seems to be about to
FORCE_CLOCK_VARIABLE = "SHM_MONITOR_FORCE_CLOCK"  # "1": do without the kernel's death mark, to try the fallback


class ResourceManager(Reader):
    """A ``Reader`` that starts a sampler if none is live under the name, and else attaches to the one that is.

    The sampler lives as long as the process that owns it: its end, SIGKILL too, ends the sampler, and one of the other
    managers of that name starts the next and owns it, within 2 s (the history begins anew). In a forked child the
    manager is just a reader and stops nothing. A context manager; ``close`` stops only what it owns.

    A sampler of another cgroup is left alone, also under this name: then ``name`` ends with the inode of the cgroup
    that limits this process.

    While it is open its sampler is the default: ``attach()`` without a name, and all that takes a ``reader=`` and gets
    none, ask it, in this process and in those that it starts, for it sets ``SHM_MONITOR_NAME``. Of several the newest
    open one is the default; ``close()`` brings back the one before, at last what the environment said. A forked child
    keeps the default, and what it closes changes the default of no other process. A forkserver that ran before the
    manager was made does not know of it: pass the name.

    Attributes:
        config: the settings in force for a sampler that this manager starts.
    """

    def __init__(
        self, config: ResourceConfig | None = None, *, watch: Iterable[str] | None = None, strict: bool = False
    ) -> None:
        """Have a sampler run and its first sample readable.

        Args:
            config: None for ``ResourceConfig.load``, which obeys the environment and a ``.env`` file; a
                configuration that was built by its constructor obeys neither.
            watch: the limits that ``should_prune`` asks for; None for the overall verdict.
            strict: refuse a running sampler that has other settings than *config* asks for; else a warning lists them.

        Raises:
            OtherConfigError: *strict*, and the running sampler has other settings.
            SamplerError: the sampler could not start (one of its kinds).
            MissingDependencyError: the packages of the sampler are not installed.
        """
        self.config = ResourceConfig.load() if config is None else config
        self._strict = strict
        self._sampler = self._shared_sampler()
        attachment = self._own_attachment(watch) if self.config.enabled else self._disabled_attachment()
        super().__init__(attachment, required=self.config.enabled)
        names.announce(self.name)
        self._finalizer = weakref.finalize(self, _close, self._sampler, attachment, os.getpid())
        renew_in_child(self, ResourceManager._after_fork_in_child)

    @property
    def reader(self) -> Reader:
        """The manager itself, which is a reader."""
        return self

    @property
    def check_interval(self) -> float:
        """Seconds between two samples of the sampler that answers."""
        return self.status().interval_seconds or self.config.check_interval

    @property
    def owns_sampler(self) -> bool:
        """True when this manager started the sampler that runs now, and so will stop it."""
        return self._sampler.owns

    def close(self) -> None:
        """Stop the sampler if this manager owns it, and unmap the segment. Idempotent.

        It takes less than 2 s unless the machine is busy.
        """
        super().close()
        self._finalizer()

    def _shared_sampler(self) -> SharedSampler:
        force_clock = os.environ.get(FORCE_CLOCK_VARIABLE) == "1"
        return SharedSampler(Order(config=self.config, owner_pid=os.getpid(), force_clock=force_clock))

    def _own_attachment(self, watch: Iterable[str] | None) -> Attachment:
        """Return an attachment to a sampler of our own memory; under another name where the name is taken."""
        try:
            return self._checked_attachment(watch)
        except OtherMemoryError as error:
            limit = memory_identity.innermost_limit()
            name = f"{self.config.name}-{limit.inode if limit else memory_identity.cgroup_namespace()}"
            _log.warning("%s; this manager uses a sampler of its own, %r", error, name)
        self.config = msgspec.structs.replace(self.config, name=name)
        self._sampler = self._shared_sampler()
        return self._checked_attachment(watch)

    def _checked_attachment(self, watch: Iterable[str] | None) -> Attachment:
        """Return an attachment to a live sampler; say which of the settings are not in force there."""
        attachment = self._live_attachment(watch)
        missing = {} if self._sampler.owns else in_force.missing(self.config)
        if missing:
            error = OtherConfigError(self.config.name, missing)
            if self._strict:
                attachment.close()
                self._sampler.stop()
                raise error
            _log.warning("%s", error)
        return attachment

    def _live_attachment(self, watch: Iterable[str] | None) -> Attachment:
        """Return an attachment to a sampler that lives; start one where there is none, or wait for one that starts."""
        wanted = None if watch is None else tuple([watch] if isinstance(watch, str) else watch)
        began = time.monotonic()
        attachment = self._attached(wanted, seconds=0.0)
        try:
            while attachment is None:
                waited_seconds = time.monotonic() - began
                if waited_seconds > START_SECONDS:
                    name = self.config.name
                    raise SamplerError(f"the sampler {name!r} does not stay alive; its log on stderr says why")
                if not self._sampler.owns:
                    self._sampler.start(unclaimed=waited_seconds > CLAIM_SECONDS)
                attachment = self._attached(wanted, seconds=LOOK_SECONDS)
        except BaseException:
            self._sampler.stop()
            raise
        self._sampler.follow()
        return attachment

    def _attached(self, watch: tuple[str, ...] | None, *, seconds: float) -> Attachment | None:
        """Return an attachment to a sampler that lives within *seconds*, or None."""
        deadline = time.monotonic() + seconds
        while True:
            attachment = Attachment(self.config.name, watch=watch, on_stale=self.config.on_stale, scope=self._scope)
            try:
                attachment.open(timeout=0.0, required=True)
                if attachment.state == LIVE:
                    return attachment
            except OtherMemoryError:
                raise
            except SegmentError:
                pass  # absent, starting, or damaged: the sampler that starts next puts it right
            if time.monotonic() >= deadline:
                return None
            time.sleep(ATTACH_POLL_SECONDS)

    @property
    def _scope(self) -> MemoryScope:
        """Whose memory is accepted: any where the configuration names the cgroup to measure."""
        return "own" if self.config.scope == "auto" else "any"

    def _disabled_attachment(self) -> Attachment:
        attachment = Attachment(self.config.name, watch=None, on_stale="never")
        attachment.close()
        return attachment

    def _after_fork_in_child(self) -> None:
        self._sampler.forget()


def _close(sampler: SharedSampler, attachment: Attachment, pid: int) -> None:
    names.withdraw(attachment.name)
    attachment.close()
    if os.getpid() == pid:
        sampler.stop()
