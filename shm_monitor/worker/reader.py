"""What a worker holds: the question "should I?", answered by one byte load, and everything behind the answer.

This module and all it imports are the standard library alone: it runs in every data-loader worker.
"""

from __future__ import annotations

from shm_monitor.errors import MonitorError, SegmentError
from shm_monitor.forks import importing
from shm_monitor.light import TYPE_CHECKING
from shm_monitor.segment import layout
from shm_monitor.segment.clocks import samplers_now_ns
from shm_monitor.segment.flags import INJECTED, INJECTED_BEFORE
from shm_monitor.segment.status import Status, beat_age_ns, state_of_error, status_of
from shm_monitor.worker.attachment import Attachment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Concatenate, ParamSpec, Self, TypeVar

    from shm_monitor.segment.view import View
    from shm_monitor.snapshot.decoder import Decoder
    from shm_monitor.snapshot.structs import Present, Snapshot
    from shm_monitor.worker.attachment import OnStale
    from shm_monitor.worker.episode import Episode
    from shm_monitor.worker.explanation import Explanation
    from shm_monitor.worker.history import History
    from shm_monitor.worker.limits import Headroom
    from shm_monitor.worker.noticing import Noticer
    from shm_monitor.worker.outlook import Outlook
    from shm_monitor.worker.presence import Request

    P = ParamSpec("P")
    R = TypeVar("R")


def _or_without_sampler(method: Callable[Concatenate[Reader, P], R]) -> Callable[Concatenate[Reader, P], R]:
    """Have *method* return what ``without_sampler`` has by its name, where no sampler is and none is required."""

    def asked(reader: Reader, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(reader, *args, **kwargs)
        except SegmentError as error:
            if reader.required:
                raise
            with importing:
                from shm_monitor.worker import without_sampler

            stand_in: Callable[Concatenate[Reader, SegmentError, P], R] = getattr(without_sampler, method.__name__)
            return stand_in(reader, error, *args, **kwargs)

    # As functools.wraps, which a worker that only asks should_prune() would load for this alone.
    asked.__name__, asked.__qualname__, asked.__doc__ = method.__name__, method.__qualname__, method.__doc__
    asked.__wrapped__ = method  # type: ignore[attr-defined] # what inspect follows
    return asked


class Reader:
    """A read-only view of one sampler. Made by ``attach``.

    Safe from any number of threads; survives fork; pickles as its name and attaches again where it is unpickled.
    What it returns are copies, never live views.

    Attributes:
        name: of the sampler.
        should_prune: ``should_prune() -> bool``: shed work now? One byte load while the sampler is alive and calm
            (35 ns; an empty function is 22 ns), no lock, no clock, no system call.
        level: ``level() -> Level``: the highest of the watched limits; one 8-byte load each. While no sampler is alive
            it is what *on_stale* stands for.
        shed_fraction: ``shed_fraction() -> float``: 0 at the target or below, 1 at the capacity, and smoothly between,
            in steps of 1/4095: the highest of the watched limits; one 8-byte load each. For scaling a fixed maximum:
            ``size = int(full * (1 - reader.shed_fraction()))``. Never scale what was scaled before: asked again and
            again within one episode, that ends at nothing. While no sampler is alive it is what *on_stale* stands for:
            0, or 1 for ``always``.
        reasons: ``reasons() -> tuple[str, ...]``: which of level, forecast, capacity, event and unknown hold on the
            watched limits; one 8-byte load each.
        required: whether the absence of a sampler is an error. Where it is not, what is asked for a sample that cannot
            be had returns the same kind with nothing known: ``explain().no_sampler`` and
            ``snapshot().unavailable["sampler"]`` say why.
    """

    def __init__(self, attachment: Attachment, *, required: bool = True) -> None:
        """Read from *attachment*; ``attach`` makes both."""
        self.required = required
        self._attachment = attachment
        self._decoder: tuple[View, Decoder] | None = None
        self._noticer: Noticer | None = None
        self.name = attachment.name
        self._make_questions()

    def _make_questions(self) -> None:
        asked = self._attachment.questions()
        self.should_prune, self.level = asked.should_prune, asked.level
        self.shed_fraction, self.reasons = asked.shed_fraction, asked.reasons

    @property
    def on_stale(self) -> OnStale:
        """What the reader answers while no sampler is alive: never, always, hold or raise."""
        return self._attachment.on_stale

    def view(self) -> View:
        """Return the segment as it is now, after looking again where the old one is gone.

        Raises:
            SegmentError: there is none; says why.
        """
        return self._attachment.view()

    @_or_without_sampler
    def snapshot(self) -> Snapshot:
        """Return one consistent sample of everything. 10 us for about 64 metrics; the first one loads msgspec.

        While no sampler is alive it is the last sample, marked ``stale``; where there never was one, and none is
        *required*, an empty one: stale, ``sequence`` 0, every reading None.

        Raises:
            SegmentError: there is no sample to be had, and one is *required*.
        """
        view, live = self._attachment.look()
        decoder = self._decoder
        if decoder is None or decoder[0] is not view:
            with importing:
                from shm_monitor.snapshot.decoder import Decoder

            decoder = self._decoder = (view, Decoder(view.schema))
        sample = view.sample()
        snapshot = decoder[1].snapshot(
            sample,
            name=self.name,
            now_ns=samplers_now_ns(view, alive=live),
            interval_ns=view.word(layout.INTERVAL_OFFSET),
            stale=not live,
            collectors=view.collector_words(),
            injected=_injected(self.name) if sample.verdict & INJECTED else (),
            present=_present(self.name, view) if view.flag(layout.OTHERS_FLAG) else (),
        )
        return _named(snapshot, self.name)

    @_or_without_sampler
    def explain(self) -> Explanation:
        """Return why: each reason that holds on the watched limits, with the numbers as they were when it was set.

        Raises:
            SegmentError: there is no sample to be had, and one is *required*.
        """
        with importing:
            from shm_monitor.worker.explanation import explain

        view, live = self._attachment.look()
        sample = view.sample()
        injected = _injected(self.name) if sample.verdict & INJECTED_BEFORE else ()
        found = explain(sample, view, self._attachment.indices, stale=not live, injected=injected)
        return found if self._attachment.presence is None else found.of_worker(self.request(), self.level())

    @_or_without_sampler
    def headroom(self) -> Headroom:
        """Return how much is left of the watched limit that has the least: of its capacity, else of its limit.

        Raises:
            SegmentError: there is no sample to be had, and one is *required*.
        """
        with importing:
            from shm_monitor.worker.limits import headroom

        view = self.view()
        return headroom(view.sample(), view, self._attachment.indices)

    def present(self, weight: float = 1.0, *, sheddable_bytes: int | None = None) -> None:
        """Have this process seen by the sampler, and asked for its part alone. Again only to say something new.

        Memory that is short is then asked of the largest holders first, a few at a time, instead of all at once: the
        questions are about the own part, and ``request`` says how much. One slot per process; a forked child gets
        one of its own. Keep ``should_prune`` and its like after this call, not from before it. Where presence cannot
        be had (no Linux, no free slot, a file that is not to be trusted) this worker is told what everybody is.

        Args:
            weight: the fair share of this worker is in proportion to it.
            sheddable_bytes: what it could give back if asked; None where it does not know.
        """
        attachment = self._attachment
        if attachment.presence is None:
            try:
                attachment.present(weight)
            except (OSError, MonitorError) as error:
                with importing:
                    import logging

                logging.getLogger("shm_monitor").warning("not present, told what everybody is: %s", error)
                return
            self._make_questions()
        if sheddable_bytes is not None and attachment.presence is not None:
            attachment.presence.say(sheddable_bytes=sheddable_bytes)

    def request(self) -> Request | None:
        """Return what this worker is asked for, of those that are present; None for nothing, and where it is not.

        Its number is another one for each request: give back that much, once.
        """
        presence = self._attachment.presence
        try:
            return None if presence is None else presence.request(self.view())
        except SegmentError:
            return None

    def answer(self, request: Request, shed_bytes: int) -> None:
        """Say that *shed_bytes* have been given back for *request*; for people, and for the next round."""
        presence = self._attachment.presence
        if presence is not None:
            presence.say(answer=(request.round_number, shed_bytes))

    def shed_bytes(self) -> int:
        """Return how many bytes over its target is the watched limit in bytes that is furthest over; else 0.

        Of a worker that is present, what it is asked for.

        For giving memory back: free that much, once. While no sampler is alive it is 0, but for ``hold``.
        """
        if self._attachment.presence is not None:
            asked = self.request()
            return 0 if asked is None else asked.size_bytes
        found = self.outlook()
        counts = found.is_live or self._attachment.on_stale == "hold"
        return int(-found.below_target_bytes) if counts and found.below_target_bytes < 0 else 0

    def episode(self) -> Episode | None:
        """Return the stretch of pressure that lasts now on the watched limits; None while calm.

        Its number is another one for each episode, so that "once per episode" is a comparison. While no sampler is
        alive it is None, but for ``hold``.
        """
        with importing:
            from shm_monitor.worker.episode import episode

        return episode(self._attachment)

    def on_change(self, callback: Callable[[Episode | None], object]) -> Callable[[], None]:
        """Call *callback* when an episode begins or changes its level, and with None when it ends, until closed.

        During an episode the first call is for that one, within a second: a worker that was just restarted has missed
        its beginning. All calls come from one daemon thread of this reader, also the first. A forked child has no such
        thread until it calls this itself.

        Returns:
            The function that ends the calls.
        """
        if self._noticer is None:
            with importing:
                from shm_monitor.worker.noticing import Noticer

            self._noticer = Noticer(self._attachment)
        return self._noticer.add(callback)

    def paused_while_pressed(self, max_wait: float | None = 60.0) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Return a decorator: each call waits until nothing presses, at most *max_wait* seconds, and then goes on."""
        with importing:
            from shm_monitor.worker.pausing import paused_while_pressed

        return paused_while_pressed(self, max_wait)

    def outlook(self) -> Outlook:
        """Return what is left in bytes, for how long, and whether a live sampler says so. Raises nothing."""
        with importing:
            from shm_monitor.worker.outlook import outlook

        return outlook(self._attachment)

    @_or_without_sampler
    def history(
        self, metrics: Sequence[str] | None = None, *, seconds: float | None = None, since: int = 0, step: int = 1
    ) -> History:
        """Return the ring as columns, newest last; see ``shm_monitor.worker.history.history``.

        Raises:
            UnknownMetricError: a name that the sampler does not have; where none is *required*, its column is None.
            SegmentError: there is no sampler to ask, and one is *required*.
        """
        with importing:
            from shm_monitor.worker.history import history

        view = self.view()
        return history(view, metrics=metrics, seconds=seconds, since=since, step=step, strict=self.required)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the answer of ``should_prune`` or the level changes; return whether it did.

        Costs nothing while it waits where the kernel has futexes: at most one wake-up a second, to see a sampler that
        died calm. Elsewhere it looks every 20 ms.
        """
        with importing:
            from shm_monitor.worker.waiting import wait

        return wait(self._attachment, timeout)

    async def changed(self, timeout: float | None = None) -> bool:
        """Await what ``wait`` waits for, without a thread: it looks every 50 ms.

        Raises:
            MonitorError: the event loop is not asyncio's (trio; anyio on trio).
        """
        with importing:
            from shm_monitor.worker.waiting import changed

        return await changed(self._attachment, timeout)

    @property
    @_or_without_sampler
    def flag_address(self) -> int:
        """The address of the first watched hot byte, for ``shm_monitor.kernels.should_prune_at``.

        An int that keeps its segment mapped for as long as it exists itself, also without this reader; what is computed
        from it does not. A sampler that comes back with another layout has another address: when a compiled loop ends,
        ask ``should_prune``, which finds the new one, and read this again. Without a sampler, where none is
        *required*, it is that of a byte that says what *on_stale* stands for; for ``raise`` it is not zero.

        Raises:
            SegmentError: there is no sampler, and one is *required*.
        """
        return self._attachment.hot_address()

    def status(self) -> Status:
        """Return the state of the sampler, with the age of its last turn and how its collectors are doing."""
        attachment = self._attachment
        try:
            return status_of(attachment.view())
        except SegmentError as error:
            return Status(self.name, state_of_error(error), str(error))

    @_or_without_sampler
    def age(self) -> float:
        """Return how many seconds ago the sampling loop last turned; infinite where none did and none is *required*.

        Raises:
            SegmentError: there is no sampler to ask, and one is *required*.
        """
        return beat_age_ns(self.view()) / 1e9

    def close(self) -> None:
        """Let go; the mapping goes with its last user. The reader then answers as if its sampler were gone."""
        self._attachment.close()
        self._decoder = None

    def __enter__(self) -> Self:
        """Return the reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the reader."""
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Reader], tuple[object, ...]]:
        """Pickle as the name: the process that unpickles attaches for itself."""
        present = self._attachment.presence is not None
        of = self._attachment
        asked = (self.name, of.watch, of.on_stale, self.required, present, of.scope)
        with importing:
            from shm_monitor.worker.attaching import attached_again

        return attached_again, asked

    def __repr__(self) -> str:
        """Return the reader as it was asked for."""
        asked = self._attachment
        return f"{type(self).__name__}(name={self.name!r}, watch={asked.watch!r}, on_stale={asked.on_stale!r})"


def _present(name: str, view: View) -> Sequence[Present]:
    with importing:
        from shm_monitor.worker.presence import present_workers

    return present_workers(name, view)


def _named(snapshot: Snapshot, name: str) -> Snapshot:
    with importing:
        from shm_monitor.segment import process_file
        from shm_monitor.snapshot.named import named

    return named(snapshot, process_file.read(name))


def _injected(name: str) -> tuple[str, ...]:
    """Return the metrics of *name* that are or were false; the sample itself says only that there are some."""
    with importing:
        from shm_monitor.segment.injection import read_last

    injection = read_last(name)
    return ("unknown",) if injection is None else tuple(sorted(injection.values))
