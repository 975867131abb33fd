"""The side file ``NAME~config``: the settings of the sampler that runs, for those that asked for others.

A sampler writes it at its start and removes it when it stops. It holds what ``shm-monitor config show`` prints.
"""

from __future__ import annotations

import contextlib
import logging
import os

import msgspec

from shm_monitor.config.resource import ResourceConfig
from shm_monitor.errors import MonitorError
from shm_monitor.segment import side_files
from shm_monitor.segment.names import CONFIG_SUFFIX, side_path

_log = logging.getLogger("shm_monitor.sampler")
_SIZE_MAX_BYTES = 1 << 20
_OF_THE_READER = frozenset({"name", "on_stale", "python", "enabled"})  # each process decides them for itself


def publish(config: ResourceConfig) -> None:
    """Write the settings of the sampler ``config.name``; where they cannot be written, one line of the log says so."""
    try:
        side_files.replace(config.name, CONFIG_SUFFIX, msgspec.json.encode(config))
    except (OSError, MonitorError) as error:
        _log.warning("the settings in force are not published: %s", error)


def remove(name: str) -> None:
    """Take the file away."""
    with contextlib.suppress(OSError):
        os.unlink(side_path(name, CONFIG_SUFFIX))


def missing(asked: ResourceConfig) -> dict[str, list[object]]:
    """Return each setting of *asked* that the running sampler ``asked.name`` has not, as asked and as in force.

    A setting at its default asks for nothing. Empty where no sampler says what is in force.
    """
    in_force = _read(asked.name)
    if in_force is None:
        return {}
    defaults = dict(zip(ResourceConfig.__struct_fields__, ResourceConfig.__struct_defaults__, strict=True))
    pairs = {key: (getattr(asked, key), getattr(in_force, key)) for key in defaults if key not in _OF_THE_READER}
    return {key: [ours, theirs] for key, (ours, theirs) in pairs.items() if ours not in {defaults[key], theirs}}


def _read(name: str) -> ResourceConfig | None:
    try:
        with open(side_files.open_file(name, CONFIG_SUFFIX, os.O_RDONLY), "rb") as file:
            return msgspec.json.decode(file.read(_SIZE_MAX_BYTES), type=ResourceConfig)
    except (OSError, MonitorError, msgspec.MsgspecError):
        return None
