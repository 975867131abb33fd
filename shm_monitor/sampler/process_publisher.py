"""Publish what the processes are called that the samples show."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from shm_monitor.collectors.base import NamingCollector
from shm_monitor.errors import MonitorError
from shm_monitor.segment import process_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from shm_monitor.collectors.base import Collector
    from shm_monitor.process_names import ProcessName

_log = logging.getLogger("shm_monitor.sampler")


class ProcessPublisher:
    """Writes the file of *name* when a collector names other processes than before. It is silent after an error."""

    def __init__(self, name: str, collectors: Iterable[Collector]) -> None:
        """Publish for the sampler *name* what its *collectors* name."""
        self._name = name
        self._collectors = [one for one in collectors if isinstance(one, NamingCollector)]
        self._published: Mapping[int, ProcessName] | None = None
        self._is_silent = False

    def turn(self, check_fence: Callable[[], None]) -> None:
        """Publish the names that have changed, before the sample that shows those processes.

        Raises:
            FencedError: *check_fence* raised it; nothing was written.
        """
        names = {pid: name for one in self._collectors for pid, name in one.processes.items()}
        if names == self._published:
            return
        check_fence()
        self._published = names
        try:
            process_file.write(self._name, names)
        except (OSError, MonitorError) as error:
            if not self._is_silent:
                _log.warning("processes are shown without names: %s", error)
            self._is_silent = True

    def close(self) -> None:
        """Take the file away."""
        process_file.remove(self._name)
