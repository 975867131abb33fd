"""``shm-monitor config init``: a ``.env`` in which every setting stands as a comment, with what it means."""

from __future__ import annotations

import inspect
import os
import re
import sys
import textwrap
from typing import TYPE_CHECKING

from shm_monitor import exits
from shm_monitor.config.bounds import BOUNDS
from shm_monitor.config.resource import ResourceConfig
from shm_monitor.errors import ConfigError

if TYPE_CHECKING:
    import argparse

WIDTH = 100
HEAD = """\
# Settings of shm-monitor. A line without # counts; the environment and arguments are stronger.
# What holds now, and from where: shm-monitor config show
"""
_ENTRY = re.compile(r"^        (\w+): (.*(?:\n            .*)*)$", re.MULTILINE)


def init(given: argparse.Namespace) -> int:
    """Write the template; a file that exists is never overwritten."""
    if given.output == "-":
        sys.stdout.write(template())
        return exits.FINE
    try:
        # Only the owner may write: anything else would not be read.
        fd = os.open(given.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError("output", given.output, "argument", "a file that does not exist, or - for stdout") from None
    except OSError as error:
        raise ConfigError("output", given.output, "argument", f"must be writable: {error.strerror}") from None
    with open(fd, "w", encoding="utf-8") as file:
        file.write(template())
    print(f"wrote {given.output}", file=sys.stderr)
    return exits.FINE


def template() -> str:
    """Return the text: each setting with its meaning, what is allowed, and its default."""
    told = meanings()
    parts = [HEAD]
    for key, default in zip(ResourceConfig.__struct_fields__, ResourceConfig.__struct_defaults__, strict=True):
        words = f"{told[key]} Allowed: {BOUNDS[key].allowed}."
        parts.append("\n".join([*_commented(words), f"#{key.upper()}={_text(default)}", ""]))
    return "\n".join(parts)


def meanings() -> dict[str, str]:
    """Return what each setting means, from the docstring that has them all."""
    text = (inspect.getdoc(ResourceConfig) or "").partition("Raises:")[0]
    entries = _ENTRY.findall(textwrap.indent(text, "    "))
    plain = {key: " ".join(words.split()).replace("``", "").replace("None:", "empty:") for key, words in entries}
    return {key: words[:1].upper() + words[1:] for key, words in plain.items()}


def when_empty() -> dict[str, str]:
    """Return what holds where a setting is empty, of those that may be."""
    found = {key: re.search(r"; empty: (.*?)\.?$", words) for key, words in meanings().items()}
    return {key: one[1] for key, one in found.items() if one}


def _commented(words: str) -> list[str]:
    return textwrap.wrap(words, WIDTH, initial_indent="# ", subsequent_indent="# ")


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
