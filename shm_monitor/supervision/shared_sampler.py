"""One sampler that several processes share: one of them owns it, and each of the others is its heir."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shm_monitor.errors import AlreadyRunningError
from shm_monitor.supervision.heir import Claim, Heir
from shm_monitor.supervision.supervisor import Supervisor

if TYPE_CHECKING:
    from shm_monitor.supervision.handshake import Order


class SharedSampler:
    """This process's part in the sampler of a name.

    Attributes:
        owns: true while the sampler is a child of this process, which then restarts it and stops it.
    """

    def __init__(self, order: Order) -> None:
        """Take no part yet."""
        self.owns = False
        self._order = order
        self._supervisor: Supervisor | None = None
        self._heir: Heir | None = None
        self._closed = False

    def start(self, *, unclaimed: bool = False) -> bool:
        """Start a sampler; return False where another process has one, or is about to.

        Args:
            unclaimed: do not ask whether somebody is about to.

        Raises:
            SamplerError: it did not start (one of its kinds).
            MissingDependencyError: the packages of the sampler are not installed.
        """
        claim = Claim(self._order.config.name)
        if not claim.take() and not unclaimed:
            return False
        try:
            return self._own()
        except AlreadyRunningError:
            return False
        finally:
            claim.release()

    def follow(self) -> None:
        """Wait in the background to own the next sampler, when the owner of this one is gone."""
        if self._closed or self.owns:
            return
        if self._heir is not None:
            self._heir.stop()  # it has ended: this process owned a sampler meanwhile
        heir = self._heir = Heir(self._order.config.name, self._own)
        heir.start()
        if self._closed:  # stopped meanwhile, and nobody has seen this heir
            heir.stop()

    def stop(self) -> None:
        """Take no part any more: stop the sampler if it is this process's. Idempotent."""
        self._closed = True
        for _ in range(2):  # an heir that was just starting one is stopped with what it has started
            if self._supervisor is not None:
                self._supervisor.stop()
            if self._heir is not None:
                self._heir.stop()
        self.owns = False

    def forget(self) -> None:
        """Let go without stopping anything: this is a forked child."""
        self._closed, self.owns = True, False
        supervisor, heir = self._supervisor, self._heir
        self._supervisor = self._heir = None
        if heir is not None:
            heir.forget()
        if supervisor is not None:
            supervisor.forget()

    def _own(self) -> bool:
        supervisor = Supervisor(self._order, on_superseded=self._superseded)
        self._supervisor = supervisor
        if self._closed:
            return False
        try:
            supervisor.start()
        except BaseException:
            self._supervisor = None
            raise
        self.owns = True
        return True

    def _superseded(self) -> None:
        """Become an heir: while this process was stopped, or paused between two starts, another got the name."""
        self.owns = False
        self._supervisor = None
        self.follow()
