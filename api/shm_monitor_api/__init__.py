"""The REST face of shm-monitor: one more reader of the segment, that answers over HTTP.

``uvicorn shm_monitor_api:app`` serves the sampler that ``SHM_MONITOR_NAME`` names; ``create_app`` builds an
application with settings of its own. ``shm-monitor api`` does the same with a server whose limits are set for it.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from shm_monitor.errors import MissingDependencyError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from shm_monitor_api.application import create_app as create_app
    from shm_monitor_api.settings import ApiConfig as ApiConfig

    app: FastAPI

__all__ = ["ApiConfig", "app", "create_app"]

if find_spec("fastapi") is None:  # a tenth of a millisecond, and the one who imports learns what to install
    raise MissingDependencyError("shm_monitor_api", "api", "fastapi")


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'shm_monitor_api' has no attribute {name!r}")
    try:
        from shm_monitor_api import application, settings
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of(f"shm_monitor_api.{name}", error) from error

    # The app is made when it is asked for: importing the package reads no environment and looks for no sampler.
    home = settings if name == "ApiConfig" else application
    value: object = application.create_app() if name == "app" else getattr(home, name)
    globals()[name] = value
    return value
