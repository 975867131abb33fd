"""The configuration, as a command sees it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from shm_monitor import exits
from shm_monitor.cli.template import when_empty
from shm_monitor.config.bounds import BOUNDS, from_text
from shm_monitor.config.origins import PREFIX, shown
from shm_monitor.config.resource import ResourceConfig, explain
from shm_monitor.errors import ConfigError
from shm_monitor.units import printable

if TYPE_CHECKING:
    import argparse


def load(given: argparse.Namespace) -> ResourceConfig:
    """Return the configuration that the options, the environment and the ``.env`` file give.

    Raises:
        ConfigError: see ``ResourceConfig.load``.
    """
    return ResourceConfig.load(given.env_file, None, **overrides(given))


def overrides(given: argparse.Namespace) -> dict[str, object]:
    """Return what ``--name`` and ``--set`` say, by field."""
    found: dict[str, object] = {}
    for text in given.set:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError("--set", shown(key, text), "argument", "KEY=VALUE, such as check_interval=0.5")
        field = key.strip().lower().removeprefix(PREFIX.lower())
        found[field] = from_text(field, value.strip()) if field in BOUNDS else value
    return found | ({"name": given.name} if given.name else {})


def show(given: argparse.Namespace) -> int:
    """Print each effective value and where it came from."""
    settings = explain(given.env_file, None, **overrides(given))
    if given.json:
        print(json.dumps([{"key": one.key, "value": one.value, "origin": one.origin} for one in settings], indent=2))
        return exits.FINE
    width = max(len(one.key) for one in settings)
    empty = when_empty()
    values = [_text(one.value) or f"({empty.get(one.key, 'none')})" for one in settings]
    value_width = min(max(map(len, values)), 50)
    for one, value in zip(settings, values, strict=True):
        print(f"{one.key:{width}}  {value:{value_width}}  {printable(one.origin)}")
    return exits.FINE


def _text(value: object) -> str:
    if value is None:
        return ""
    return printable(",".join(map(str, value)) if isinstance(value, tuple) else str(value))
