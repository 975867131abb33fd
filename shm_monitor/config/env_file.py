"""A ``.env`` file: which one is found, whether it is believed, and its lines as they stand there.

The search obeys a file that nobody named, so it looks only where nobody else can put one: in directories that are ours
or root's and that others cannot write, on one file system. Values are literal; no variable is filled in.
"""

from __future__ import annotations

import io
import logging
import os
import re
import stat
import sys
from collections.abc import Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shm_monitor.config.bounds import ARGUMENT
from shm_monitor.config.text import decoded, read_all, reason_of
from shm_monitor.config.trust import distrust
from shm_monitor.errors import ConfigError

if TYPE_CHECKING:
    from dotenv.parser import Original

EnvFile = str | PathLike[str] | bool | None

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY
_OPEN_DIRECTORY = os.O_CLOEXEC | os.O_DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY)

_log = logging.getLogger(__name__)


class Line(NamedTuple):
    """One ``KEY=text`` as it stands in a file or in the environment.

    Args:
        key: as written; of a line that cannot be read its first word, or nothing.
        text: None where the ``=`` is missing or the line cannot be read.
        origin: the file and the line, or ``environment``.
        is_broken: true for a line that cannot be read.
    """

    key: str
    text: str | None
    origin: str
    is_broken: bool = False


class Content(NamedTuple):
    """What a file holds."""

    path: Path
    data: bytes


def is_named(env_file: EnvFile) -> bool:
    """Say whether somebody named a file, so that its keys may also decide who is served."""
    return env_file is not None and not isinstance(env_file, bool) and fspath(env_file) not in {"", os.devnull}


def lines(env_file: EnvFile) -> list[Line]:
    """Return the lines of the file that *env_file* stands for.

    Args:
        env_file: a path; None for the nearest (``nearest``); ``False``, ``""`` and ``/dev/null`` for none.

    Raises:
        ConfigError: a named file that cannot be read or is not to be believed; one that is no text or too long.
    """
    if env_file is None:
        content = nearest(getattr(sys.modules.get("__main__"), "__file__", None))
    elif env_file is True:
        raise ConfigError("env_file", env_file, ARGUMENT, "must be a path, False for no file or None to search")
    else:
        content = _named(Path(fspath(env_file))) if env_file is not False and is_named(env_file) else None
    return [] if content is None else list(_parsed(content))


def nearest(script: str | None, directory: Path | None = None) -> Content | None:
    """Return the ``.env`` beside *script*, else the first from *directory* (the working one) upward, else None.

    Each of the two searches ends at a directory or at a file that somebody else could have written, and at the border
    of a file system; where a ``.env`` is left out for it, the log says so.
    """
    beside = None if script is None else _first([Path(script).parent])
    if beside is not None:
        return beside
    try:
        start = Path.cwd() if directory is None else directory
    except OSError:  # the working directory was removed
        return None
    return _first([start, *start.parents])


class _Stop(Exception):
    """Look no further: what lies here could be somebody else's; the message says what was left out, if anything."""


def _first(places: list[Path]) -> Content | None:
    """Return the first ``.env`` in *places*, which are ours and on one file system as far as this looks."""
    device = None
    try:
        for place in places:
            fd = os.open(place, _OPEN_DIRECTORY)
            try:
                found = os.fstat(fd)
                if device not in {None, found.st_dev}:
                    return None
                device = found.st_dev
                content = _of_directory(place, fd, distrust(found, fd))
            finally:
                os.close(fd)
            if content is not None:
                return content
    except _Stop as stop:
        if str(stop):
            _log.warning("%s; name it to have it obeyed (--env-file, env_file=)", stop)
    except (OSError, ValueError):  # a place that may not be searched; a script path with a NUL
        pass
    return None


def _of_directory(place: Path, directory: int, doubt: str) -> Content | None:
    """Return the ``.env`` in the open *directory*, None where there is none.

    Raises:
        _Stop: there is *doubt* about the directory, or the file is one that somebody else could have written.
    """
    path = place / ".env"
    try:
        # O_NONBLOCK: opening a FIFO that somebody put there would wait for ever.
        fd = os.open(".env", _OPEN | os.O_NONBLOCK, dir_fd=directory)
    except FileNotFoundError:
        if doubt:
            raise _Stop from None
        return None
    except OSError as error:
        raise _Stop(f"{path} is left out: {error.strerror}") from None
    try:
        found = os.fstat(fd)
        if doubt:
            raise _Stop(f"{path} is left out, for its directory is not only ours: {doubt}")
        if not stat.S_ISREG(found.st_mode):
            return None  # virtual environments are often called .env
        doubt = distrust(found, fd)
        if doubt:
            raise _Stop(f"{path} is left out: {doubt}")
        return Content(path, _bytes_of(path, fd))
    finally:
        os.close(fd)


def _named(path: Path) -> Content:
    try:
        fd = os.open(path, _OPEN)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    try:
        doubt = distrust(os.fstat(fd), fd)
        if doubt:
            allowed = f"must be a file of this user or root that nobody else can write: {doubt}"
            raise ConfigError("env_file", str(path), ARGUMENT, allowed)
        return Content(path, _bytes_of(path, fd))
    finally:
        os.close(fd)


def _bytes_of(path: Path, fd: int) -> bytes:
    try:
        return read_all(fd)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _parsed(content: Content) -> Iterator[Line]:
    from dotenv.parser import parse_stream  # 0.6 MB that a sampler and a supervisor without a file need not carry

    try:
        text = decoded(content.data)
    except ValueError as error:
        raise _unreadable(content.path, error) from None
    for binding in parse_stream(io.StringIO(text, newline="")):
        origin = f"{content.path} line {_line_number(binding.original)}"
        if binding.error:
            word = re.match(r"\s*(?:export\s+)?['\"]?(\w+)", binding.original.string)
            yield Line(word[1] if word else "", None, origin, is_broken=True)
        elif binding.key is not None:
            yield Line(binding.key, binding.value, origin)


def _line_number(original: Original) -> int:
    """Return the line on which a statement begins; python-dotenv counts the blank lines before it as its own."""
    blank = original.string[: len(original.string) - len(original.string.lstrip())]
    return original.line + len(re.findall(r"\r\n|\n|\r", blank))


def _unreadable(path: Path, error: OSError | ValueError) -> ConfigError:
    return ConfigError("env_file", str(path), ARGUMENT, f"must be a readable text file: {reason_of(error)}")
