"""The one place that imports Ray, or says what to install."""

from __future__ import annotations

from shm_monitor.errors import MissingDependencyError

try:
    import ray
except ModuleNotFoundError as error:
    raise MissingDependencyError("shm_monitor.integrations.ray", "ray", "ray") from error

__all__ = ["ray"]
