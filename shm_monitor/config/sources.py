"""Where settings come from: arguments, the environment, a ``.env`` file, defaults; the first that has one wins.

A setting is read from its upper-case name and from ``SHM_MONITOR_`` + that name, which wins within one source.
Neither ``os.environ`` nor the file is ever changed.
"""

from __future__ import annotations

import difflib
import io
import logging
import re
import sys
from collections.abc import Container, Iterable, Iterator, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import NamedTuple

from dotenv.parser import Original, parse_stream
from dotenv.variables import parse_variables

from shm_monitor.config.settings import ARGUMENT, RULES, Value, from_text
from shm_monitor.errors import ConfigError

EnvFile = str | PathLike[str] | bool | None

PREFIX = "SHM_MONITOR_"

RESERVED_KEYS = frozenset(
    f"{PREFIX}{name}" for name in ("ALLOWED_HOSTS", "BIND", "DIR", "FORCE_CLOCK", "TOKEN", "TOKEN_FILE")
)
"""Keys with our prefix that are no settings of the sampler."""

PREFIXED_ONLY_IN_ENVIRONMENT = frozenset({"gpus", "name"})
"""Settings whose bare name means other things: WSL exports ``NAME=<host name>``, Slurm scripts a count ``GPUS=8``."""

_log = logging.getLogger(__name__)

_SETTING_OF = {key: field for field in RULES for key in (field.upper(), PREFIX + field.upper())}
_SECRET = re.compile("TOK|SECRET|PASS|KEY|AUTH")


class Found(NamedTuple):
    """One setting as somebody wrote it.

    Args:
        key: the name as written there: ``CHECK_INTERVAL``, ``SHM_MONITOR_CHECK_INTERVAL``, ``check_interval``.
        value: what it says; of an argument, not checked yet.
        source: ``argument``, ``environment`` or the file and the line.
    """

    key: str
    value: object
    source: str


class _Line(NamedTuple):
    """One ``KEY=text``; *text* is None where the ``=`` is missing."""

    key: str
    text: str | None
    source: str


def collect(env_file: EnvFile, environ: Mapping[str, str], overrides: Mapping[str, object]) -> dict[str, Found]:
    """Return what each setting is set to, by setting; those that nobody set are left out.

    Raises:
        ConfigError: a named file cannot be read; a value is not of its setting's kind; a key of ours is unknown.
    """
    found: dict[str, Found] = {}
    path = env_path(env_file)
    if path is not None:
        found |= _settings(_file_lines(path, environ))
    found |= _settings(_environ_lines(environ), refused=PREFIXED_ONLY_IN_ENVIRONMENT)
    return found | _arguments(overrides)


def env_path(env_file: EnvFile) -> Path | None:
    """Return the file that *env_file* stands for: itself, none for ``False`` and ``""``, the nearest for ``None``."""
    if env_file is None:
        return find_env_file(getattr(sys.modules.get("__main__"), "__file__", None))
    if isinstance(env_file, bool):
        if env_file:
            raise ConfigError("env_file", env_file, "argument", "must be a path, False for no file or None to search")
        return None
    return Path(fspath(env_file)) if fspath(env_file) else None


def find_env_file(script: str | None, directory: Path | None = None) -> Path | None:
    """Return the ``.env`` beside *script*, else the first from *directory* (the working one) upward, else None."""
    try:
        start = Path.cwd() if directory is None else directory
        places = [start, *start.parents]
    except OSError:  # the working directory was removed
        places = []
    if script is not None:
        places.insert(0, Path(script).parent)
    for place in places:
        candidate = place / ".env"
        try:
            if candidate.is_file():
                return candidate
        except (OSError, ValueError):  # a parent that may not be searched; a script path with a NUL
            continue
    return None


def _arguments(overrides: Mapping[str, object]) -> dict[str, Found]:
    """Return the settings given in code, unchecked: the constructor checks them."""
    for key, value in overrides.items():
        if key not in RULES:
            raise ConfigError(key, _shown(key, value), ARGUMENT, f"no such setting{_nearest(key, RULES)}")
    return {key: Found(key, value, ARGUMENT) for key, value in overrides.items()}


def _settings(lines: Iterable[_Line], *, refused: Container[str] = ()) -> dict[str, Found]:
    """Return the settings among *lines*; a prefixed key wins over a bare one, else the last line wins.

    Args:
        lines: all of one source, foreign keys too.
        refused: settings whose bare key is not ours in this source.
    """
    found: dict[str, Found] = {}
    for line in sorted(lines, key=lambda line: line.key.startswith(PREFIX)):
        field = _SETTING_OF.get(line.key)
        if field is None:
            _check_foreign(line)
        elif field not in refused or line.key.startswith(PREFIX):
            text = _uncommented(line)
            if text:  # KEY= is how compose files and shells write "not set"
                found[field] = Found(line.key, _value(field, text, line), line.source)
    return found


def _value(field: str, text: str, line: _Line) -> Value:
    try:
        return from_text(field, text)
    except ConfigError as error:
        raise ConfigError(line.key, text, line.source, error.allowed) from None


def _uncommented(line: _Line) -> str:
    """Return the text of *line* without a ``# comment`` at its end and the quotes that ``docker --env-file`` keeps."""
    if line.text is None:
        raise ConfigError(line.key, "", line.source, f"has no value; write {line.key}=...")
    text = re.sub(r"(^|\s)#.*", "", line.text, flags=re.DOTALL).strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _check_foreign(line: _Line) -> None:
    """Raise ``ConfigError`` where a key that is no setting bears our prefix; any other is somebody else's."""
    if line.key.startswith(PREFIX) and line.key not in RESERVED_KEYS:
        near = _nearest(line.key, [key for key in _SETTING_OF if key.startswith(PREFIX)] + sorted(RESERVED_KEYS))
        raise ConfigError(line.key, _shown(line.key, line.text), line.source, f"no such setting{near}")


def _nearest(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"


def _shown(key: str, value: object) -> object:
    """Return *value*, unless *key* looks like that of a secret: a mistyped token must not end in a log."""
    return "(hidden)" if _SECRET.search(key.upper()) else value


def _environ_lines(environ: Mapping[str, str]) -> Iterator[_Line]:
    for key, text in environ.items():
        if key in _SETTING_OF or key.startswith(PREFIX):
            yield _Line(key, text, "environment")


def _file_lines(path: Path, environ: Mapping[str, str]) -> Iterator[_Line]:
    """Yield the lines of the file *path*; a ``${NAME}`` is looked up in the lines before it, then in *environ*."""
    seen: dict[str, str | None] = dict(environ)
    for binding in parse_stream(io.StringIO(_content(path), newline="")):
        source = f"{path} line {_line_number(binding.original)}"
        if binding.error:
            _check_broken(binding.original.string.strip(), source)
        elif binding.key is not None:
            text = binding.value
            if text is not None:
                text = "".join(atom.resolve(seen) for atom in parse_variables(text))
            seen[binding.key] = text
            yield _Line(binding.key, text, source)


def _line_number(original: Original) -> int:
    """Return the line on which a statement begins; python-dotenv counts the blank lines before it as its own."""
    blank = original.string[: len(original.string) - len(original.string.lstrip())]
    return original.line + len(re.findall(r"\r\n|\n|\r", blank))


def _check_broken(statement: str, source: str) -> None:
    """Raise ``ConfigError`` where a line that cannot be parsed is meant for us; others are somebody else's."""
    match = re.match(r"(?:export\s+)?['\"]?(\w+)", statement)
    key = match[1] if match else ""
    if key in _SETTING_OF or key.startswith(PREFIX):
        raise ConfigError(key, _shown(key, statement), source, f"cannot be read; write {key}=value")
    _log.warning("%s cannot be read and is left out", source)


def _content(path: Path) -> str:
    """Return the text of the file *path*: UTF-8, with or without a byte order mark, or UTF-16 with one.

    Raises:
        ConfigError: absent, not readable or of another encoding.
    """
    try:
        data = path.read_bytes()
        # Windows PowerShell 5 writes UTF-16 by default ("> .env").
        return data.decode("utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError("env_file", str(path), ARGUMENT, f"must be a readable text file: {reason}") from None
