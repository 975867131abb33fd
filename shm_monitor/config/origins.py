"""Where settings come from: arguments, the environment, a ``.env`` file, defaults; the first that has one wins.

A setting is read from its upper-case name and from ``SHM_MONITOR_`` + that name, which wins within one origin.
Neither ``os.environ`` nor the file is ever changed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

from shm_monitor.config import env_file as env_files
from shm_monitor.config.bounds import ARGUMENT, BOUNDS, Value, bad_setting, from_text
from shm_monitor.config.env_file import EnvFile, Line
from shm_monitor.config.spelling import is_one_edit_from, nearest
from shm_monitor.errors import ConfigError

PREFIX = "SHM_MONITOR_"

SERVING_KEYS = frozenset(f"{PREFIX}{name}" for name in ("ALLOWED_HOSTS", "BIND", "TOKEN", "TOKEN_FILE"))
"""What decides who is served: obeyed in the environment and in a file that somebody named, never in one just found."""

RESERVED_KEYS = SERVING_KEYS | {f"{PREFIX}FORCE_CLOCK"}
"""Keys with our prefix that are no settings of the sampler."""

PREFIXED_ONLY_IN_ENVIRONMENT = frozenset({"gpus", "name", "python"})
"""Settings whose bare name means other things: WSL exports ``NAME=<host name>``, Slurm scripts a count ``GPUS=8``,
and makefiles take ``PYTHON=python3.12``."""

ENVIRONMENT = "environment"

_log = logging.getLogger(__name__)

_SETTING_OF = {key: field for field in BOUNDS for key in (field.upper(), PREFIX + field.upper())}
_BARE_KEYS = tuple(field.upper() for field in BOUNDS)
_SECRET = re.compile("TOK|SECRET|PASS|KEY|AUTH")


class Found(NamedTuple):
    """One setting as somebody wrote it.

    Args:
        key: the name as written there: ``CHECK_INTERVAL``, ``SHM_MONITOR_CHECK_INTERVAL``, ``check_interval``.
        value: what it says; of an argument, not checked yet.
        origin: ``argument``, ``environment`` or the file and the line.
    """

    key: str
    value: object
    origin: str


def collect(env_file: EnvFile, environ: Mapping[str, str], overrides: Mapping[str, object]) -> dict[str, Found]:
    """Return what each setting is set to, by setting; those that nobody set are left out.

    Raises:
        ConfigError: a named file cannot be read; a value is not of its setting's kind; a key of ours is unknown.
    """
    found = _settings(env_files.lines(env_file), bare=_BARE_KEYS)
    from_environ = (Line(key, text, ENVIRONMENT) for key, text in environ.items())
    # One word is too little to say of a stranger's variable that it was meant for us: SCOPES, GPU, ENABLE.
    spelled = [key for key in _BARE_KEYS if "_" in key]
    found |= _settings(from_environ, bare=spelled, refused=PREFIXED_ONLY_IN_ENVIRONMENT)
    return found | _arguments(overrides)


def for_serving(env_file: EnvFile) -> dict[str, str]:
    """Return what a ``.env`` file says to the API: the name of the sampler, and who is served if the file was named.

    Raises:
        ConfigError: a named file cannot be read or is not to be believed.
    """
    found: dict[str, str] = {}
    for line in env_files.lines(env_file):
        text = "" if line.is_broken or line.text is None else uncommented(line.text)
        if text and _SETTING_OF.get(line.key) == "name":
            if line.key.startswith(PREFIX) or f"{PREFIX}NAME" not in found:
                found[f"{PREFIX}NAME"] = text
        elif text and line.key in SERVING_KEYS:
            if env_files.is_named(env_file):
                found[line.key] = text
            else:
                _log.warning(
                    "%s (from %s) is left out: who is served is for the environment or a file that is named to say "
                    "(--env-file)",
                    line.key,
                    line.origin,
                )
    return found


def _arguments(overrides: Mapping[str, object]) -> dict[str, Found]:
    """Return the settings given in code, unchecked: the constructor checks them."""
    for key, value in overrides.items():
        if key not in BOUNDS:
            raise bad_setting(key, shown(key, value), ARGUMENT, f"no such setting{nearest(key, BOUNDS)}")
    return {key: Found(key, value, ARGUMENT) for key, value in overrides.items()}


def _settings(lines: Iterable[Line], *, bare: Iterable[str], refused: Container[str] = ()) -> dict[str, Found]:
    """Return the settings among *lines*; a prefixed key wins over a bare one, else the last line wins.

    Args:
        lines: all of one origin, foreign keys too.
        bare: keys that a foreign one may have been meant for.
        refused: settings whose bare key is not ours in this origin.
    """
    found: dict[str, Found] = {}
    for line in sorted(lines, key=lambda line: line.key.startswith(PREFIX)):
        field = _SETTING_OF.get(line.key)
        if line.is_broken:
            _check_broken(line)
        elif field is None:
            _check_foreign(line, bare)
        elif field not in refused or line.key.startswith(PREFIX):
            if line.text is None:
                raise bad_setting(line.key, "", line.origin, f"has no value; write {line.key}=...")
            text = uncommented(line.text)
            if text:  # KEY= is how compose files and shells write "not set"
                found[field] = Found(line.key, _value(field, text, line), line.origin)
    return found


def _value(field: str, text: str, line: Line) -> Value:
    try:
        return from_text(field, text)
    except ConfigError as error:
        hint = "; write the value itself, ${...} is not filled in" if "${" in text else ""
        told = shown(line.key, line.text)  # as it stands there: what is left of several lines may be one
        raise bad_setting(line.key, text if told == line.text else told, line.origin, error.allowed + hint) from None


def uncommented(text: str) -> str:
    """Return *text* without a ``# comment`` at its end and the quotes that ``docker --env-file`` keeps."""
    text = re.sub(r"(^|\s)#.*", "", text, flags=re.DOTALL).strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _check_foreign(line: Line, bare: Iterable[str]) -> None:
    """Raise ``ConfigError`` where a key that is no setting bears our prefix; say so where another may have been meant.

    Any other key is somebody else's.
    """
    if line.key.startswith(PREFIX):
        if line.key not in RESERVED_KEYS:
            near = nearest(line.key, [key for key in _SETTING_OF if key.startswith(PREFIX)] + sorted(RESERVED_KEYS))
            raise bad_setting(line.key, shown(line.key, line.text), line.origin, f"no such setting{near}")
        return
    meant = next((key for key in bare if is_one_edit_from(line.key, key)), None)
    if meant:
        _log.warning("%s (from %s) is no setting and is left out; did you mean %s?", line.key, line.origin, meant)


def _check_broken(line: Line) -> None:
    """Raise ``ConfigError`` where a line that cannot be parsed is meant for us; others are somebody else's."""
    if line.key in _SETTING_OF or line.key.startswith(PREFIX):
        raise bad_setting(line.key, "(a broken line)", line.origin, f"cannot be read; write {line.key}=value")
    _log.warning("%s cannot be read and is left out", line.origin)


def shown(key: str, value: object) -> object:
    """Return *value* as a message may show it: a mistyped token must not end in a log.

    Nor is one of several lines shown: a quote that is never closed takes the lines after it with it, also secret ones.
    """
    if _SECRET.search(key.upper()):
        return "(hidden)"
    return "(several lines)" if isinstance(value, str) and len(value.splitlines()) > 1 else value
