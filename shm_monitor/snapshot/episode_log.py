"""The log of episodes: what a sampler writes when pressure begins, changes and ends, and what is left of it later."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

import msgspec

from shm_monitor.segment import episode_file
from shm_monitor.units import amount, duration, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OVERALL = "overall"
FOLLOW_SECONDS = 0.2  # between two looks at the file: one stat, 2 us


class EpisodeRecord(msgspec.Struct, frozen=True):
    """One event of an episode, which is a stretch of time in which a limit asks to prune.

    Args:
        event: ``begin``, ``level`` (it changed), ``end``, or ``lost``: nobody saw the end, for its sampler stopped or
            was killed first, or had no readings for more than a period.
        limit: ``memory:0``, cpu, network, ``gpu:3`` ..., or ``overall``: some limit asks to prune.
        number: the same in all events of an episode, another one in the next; it is that of ``reader.episode()``.
        time: of the sample that showed it, in unix seconds; since is when the episode began.
        level: then: prune or critical; below that where it ends, unless the next one begins with the same sample.
        reasons: level, forecast, capacity, event: those that held then; of an end, those that held last.
        unit: of the readings; empty for ``overall``, which has none.
        value: the reading then; peak the highest one of the episode so far. None for unknown.
        limit_value: the limit then; capacity what there was.
        duration_seconds: how long it lasted; None until it ends, and where nobody knows.
        injected: true where readings were false on purpose.
    """

    event: Literal["begin", "level", "end", "lost"]
    limit: str
    number: int
    time: float
    since: float
    level: str
    reasons: tuple[str, ...]
    unit: str
    value: float | None
    peak: float | None
    limit_value: float | None
    capacity: float | None
    duration_seconds: float | None
    injected: bool

    @property
    def is_over(self) -> bool:
        """Whether nothing comes after it in its episode."""
        return self.event in {"end", "lost"}

    def __str__(self) -> str:
        """Return one line for people."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.time))
        parts = [f"{when}  {self.limit:12}  {self._words()}"]
        if self.unit:
            parts += [
                f"{name} {amount(number, self.unit)}"
                for name, number in (("at", self.value), ("limit", self.limit_value), ("peak", self.peak))
                if number is not None
            ]
        if self.injected:
            parts.append("injected")
        return printable(", ".join(parts))

    def _words(self) -> str:
        if self.event == "lost":
            if self.duration_seconds is None:
                return "end not seen: the sampler was killed, or had no readings"
            return f"sampler stopped after {duration(self.duration_seconds)}; the episode was still open"
        if self.event == "end":
            return f"over after {duration(self.duration_seconds or 0.0)}"
        return f"{self.event if self.event == 'begin' else 'now'} {self.level} ({', '.join(self.reasons)})"


def encoded(records: Iterable[EpisodeRecord]) -> bytes:
    """Return *records* as lines of JSON."""
    return msgspec.json.Encoder().encode_lines(list(records))


def read(name: str, *, since: float = 0.0) -> list[EpisodeRecord]:
    """Return what the log of the sampler *name* still has, oldest first; it need not run.

    Args:
        name: of the sampler.
        since: only events after that time, in unix seconds.

    Raises:
        UntrustedError: somebody else's file lies in its place.
        SamplerError: the system refuses, such as for too many open files.
    """
    return [one for one in _decoded(episode_file.lines_of(name)) if one.time > since]


def begun_before(name: str, since: float) -> list[EpisodeRecord]:
    """Return the beginning of each episode that was open at the time *since*, in unix seconds.

    Raises:
        MonitorError: as ``read``.
    """
    events = [one for one in read(name) if one.time <= since]
    newest = {one.limit: one for one in events}
    still_open = {(one.limit, one.number) for one in newest.values() if not one.is_over}
    return [one for one in events if one.event == "begin" and (one.limit, one.number) in still_open]


def unfinished(name: str) -> dict[str, EpisodeRecord]:
    """Return by limit the newest event of each episode that has no end in the log of *name*.

    Raises:
        MonitorError: as ``read``.
    """
    newest = {one.limit: one for one in read(name)}
    return {limit: one for limit, one in newest.items() if not one.is_over}


def follow(name: str, *, since: float = 0.0) -> Iterator[list[EpisodeRecord]]:
    """Yield what the log of *name* has and then, for ever, what is added; a list each, empty where nothing is.

    Raises:
        MonitorError: as ``read``.
    """
    state, last = (0, 0), b""
    while True:
        newer, found = episode_file.state_of(name), list[bytes]()
        if newer != state:
            state, lines = newer, episode_file.lines_of(name)
            place = max((at for at, line in enumerate(lines) if line == last), default=-1) if last else -1
            found, last = lines[place + 1 :], lines[-1] if lines else b""
        yield [one for one in _decoded(found) if one.time > since]
        time.sleep(FOLLOW_SECONDS)


def _decoded(lines: Iterable[bytes]) -> Iterator[EpisodeRecord]:
    """Yield what *lines* say; one that was half-written, or that another version means otherwise, says nothing."""
    decoder = msgspec.json.Decoder(EpisodeRecord)
    for line in lines:
        try:
            yield decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
